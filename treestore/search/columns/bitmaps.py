"""A filter over columns: one bool for each row.

Every condition is on one attribute, so none is left that has to look at rows one by one: ``$and``,
``$or`` and ``$not`` combine what the columns say, ``$elemMatch`` is decided for each different
element. One byte a row, not one bit: combining and counting are as fast, looking up is three times
as fast, and packing for faiss (`packed`) takes 10 microseconds for 100,000 rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from treestore.errors import InvalidArgument
from treestore.model.namespaces import AttributeSchema
from treestore.query.expression import And, Expression, Not, Or
from treestore.query.partial import names_in
from treestore.search.columns.rows import Columns
from treestore.search.columns.values import Bools

ID = "id"
"""Under this name filters find a document's id."""


def check_names(expression: Expression, attributes: Mapping[str, AttributeSchema]) -> None:
    """See that a filter names attributes of a schema that are filterable, or the id.

    Raises:
        InvalidArgument: it does not.
    """
    for name in sorted(names_in(expression)):
        check_name(name, attributes)


def check_name(name: str, attributes: Mapping[str, AttributeSchema]) -> None:
    """Likewise one name."""
    if name == ID:
        return
    schema = attributes.get(name)
    if schema is None:
        known = ", ".join([ID, *attributes])
        raise InvalidArgument(
            f"There is no attribute {name!a:.80}; there are: {known[:500]}"
            f"{'…' if len(known) > 500 else '.'}"
        )
    if not schema.filterable:
        raise InvalidArgument(
            f"The attribute {name!a:.80} is not filterable: its schema says filterable: false. "
            "Filters, orders and groups need it to be."
        )


def bitmap(expression: Expression, columns: Columns) -> Bools:
    """For each row whether a filter holds. It may be shared: not to be changed.

    The names are not checked (`check_names`): an attribute that nobody knows is one that is
    missing.
    """
    if isinstance(expression, And):
        return _joined(expression.parts, columns, every=True)
    if isinstance(expression, Or):
        return _joined(expression.parts, columns, every=False)
    if isinstance(expression, Not):
        return np.logical_not(bitmap(expression.part, columns))
    return columns.mask(expression)


def _joined(parts: tuple[Expression, ...], columns: Columns, *, every: bool) -> Bools:
    if not parts:
        return np.full(columns.count, every)
    join = np.logical_and if every else np.logical_or
    found = bitmap(parts[0], columns)
    for part in parts[1:]:
        if found.all() if not every else not found.any():
            break  # Nothing more to find out.
        # The first one may be shared.
        out = found if found.flags.writeable else None
        found = join(found, bitmap(part, columns), out=out)
    return found


def packed(rows: Bools) -> NDArray[np.uint8]:
    """One bit for each row, the first the lowest, as faiss' ``IDSelectorBitmap`` takes them."""
    return np.packbits(rows, bitorder="little")
