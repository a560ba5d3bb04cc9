"""A compiled filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from treestore.query.expression import Expression
from treestore.query.matching import Predicate, predicate
from treestore.query.parse import Parser


@attrs.frozen
class Filter:
    """A filter that was understood. Made by `compile`.

    Attributes:
        expression: its normal form, for planners.
        matches: whether a document (a dict) satisfies it. Documents are made of what JSON holds,
            and of datetimes.
    """

    expression: Expression
    matches: Predicate = attrs.field(eq=False, repr=False)

    @classmethod
    def of(cls, expression: Expression) -> Filter:
        """The filter that ``expression`` is the normal form of."""
        return cls(expression, predicate(expression))


def compile(filter: Mapping[str, Any] | None) -> Filter:
    """Understand a filter; None and {} let everything through.

    Raises:
        InvalidArgument: it is none; says where it goes wrong and how.
    """
    return Filter.of(Parser().filter({} if filter is None else filter, "", 1))
