"""A compiled filter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from treestore.query.expression import Expression
from treestore.query.matching import Predicate, predicate
from treestore.query.parse import Parser
from treestore.query.quick import read_quickly


@attrs.define(slots=False, unsafe_hash=True)  # Never changed.
class Filter:
    """A filter that was understood. Made by `compile`.

    Attributes:
        expression: its normal form, for planners.
    """

    expression: Expression

    @cached_property
    def matches(self) -> Predicate:
        """Whether a document (a dict) satisfies it. Documents are made of what JSON holds, and of
        datetimes. (Made when first asked for: what an index answers exactly is never checked.)"""
        return predicate(self.expression)

    @classmethod
    def of(cls, expression: Expression) -> Filter:
        """The filter that ``expression`` is the normal form of."""
        return cls(expression)


def compile(filter: Mapping[str, Any] | None) -> Filter:
    """Understand a filter; None and {} let everything through.

    Raises:
        InvalidArgument: it is none; says where it goes wrong and how.
    """
    quickly = read_quickly(filter)
    if quickly is not None:
        return Filter(quickly)
    return Filter.of(Parser().filter({} if filter is None else filter, "", 1))
