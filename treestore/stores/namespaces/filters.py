"""Filters of namespaces: the one language (docs/filters.md), checked against the schema.

A condition names an attribute that is filterable, or ``id``. What it compares with is brought to
the form in which the attribute's values are kept, so a moment is found however it is written; a
value that no document can have there is refused, since it is mostly a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from treestore.errors import InvalidArgument
from treestore.model.namespaces import DocumentId, NamespaceSchema
from treestore.query.expression import (
    And,
    Contains,
    Element,
    Equal,
    Exists,
    Expression,
    Glob,
    In,
    Not,
    Or,
    Path,
    Range,
    Regex,
    Size,
    Type,
)
from treestore.query.matching import Predicate, predicate
from treestore.query.parse import Parser
from treestore.query.partial import names_in
from treestore.stores.json_values import shown
from treestore.stores.namespaces.values import CONVERTS, WANTED, Unfit, element_of

ID = "id"


@attrs.frozen(eq=False)
class NamespaceFilter:
    """A filter that fits a schema.

    Attributes:
        expression: its normal form, operands as values are kept; for planners.
        names: attributes that it looks at, and perhaps `ID`.
        by_id: whether it looks at the id.
    """

    expression: Expression
    names: frozenset[str]
    by_id: bool
    _matches: Predicate

    @property
    def everything(self) -> bool:
        """Whether it lets everything through."""
        return self.expression == And(())

    def matches(self, id: DocumentId, attributes: dict[str, Any]) -> bool:
        """Whether a document satisfies it."""
        if self.by_id:
            return self._matches({**attributes, ID: id})
        return self._matches(attributes)


def compile_filter(filter: Any, schema: NamespaceSchema) -> NamespaceFilter:
    """Understand a filter; None and {} let everything through.

    Raises:
        InvalidArgument: it is none, names what is no filterable attribute, or compares with what
            is not of the attribute's type.
    """
    expression = Parser().filter({} if filter is None else filter, "", 1)
    fitted = _Fitting(schema).fitted(expression)
    names = names_in(fitted)
    return NamespaceFilter(fitted, names, ID in names, predicate(fitted))


def check_filterable(name: Any, schema: NamespaceSchema, where: str) -> None:
    """Raise `InvalidArgument` unless a name is ``id`` or a filterable attribute's."""
    if name == ID:
        return
    attribute = schema.attributes.get(name)
    if attribute is None:
        known = ", ".join([ID, *schema.attributes])
        raise InvalidArgument(
            f"{where}: the schema has no attribute {shown(name)}; it has {known:.500}."
        )
    if not attribute.filterable:
        raise InvalidArgument(
            f"{where}: attribute {shown(name)} is not filterable; make it so with update_schema."
        )


class _Fitting:
    """Brings an expression's operands to the form of a schema's values."""

    def __init__(self, schema: NamespaceSchema) -> None:
        self._schema = schema

    def fitted(self, part: Expression) -> Expression:
        """The same with other operands."""
        if isinstance(part, And | Or):
            return type(part)(tuple(map(self.fitted, part.parts)))
        if isinstance(part, Not):
            return Not(self.fitted(part.part))
        name = self._name(part.path)
        kind = ID if name == ID else self._schema.attributes[name].type
        return _fitted_leaf(part, name, kind)

    def _name(self, path: Path) -> str:
        name = path[0]
        check_filterable(name, self._schema, "The filter")
        if len(path) > 1:
            raise InvalidArgument(
                f"The filter: attributes have no fields; {'.'.join(path)!a:.60} leads into one."
            )
        return name


def _fitted_leaf(part: Any, name: str, kind: str) -> Expression:
    """A condition on an attribute of some type, or (an empty path) on an element."""
    inner = element_of(kind)
    fit = _fit_of(name, kind)
    if isinstance(part, Equal | Range):
        return attrs.evolve(part, value=fit(part.value))
    if isinstance(part, In):
        return attrs.evolve(part, values=tuple(map(fit, part.values)))
    if isinstance(part, Contains):
        if inner is None and kind not in ("string", ID):
            raise _wrong(name, "$contains is for strings and arrays")
        fit = _fit_of(name, inner or kind)
        return attrs.evolve(part, values=tuple(map(fit, part.values)))
    if isinstance(part, Size | Element) and inner is None:
        raise _wrong(name, f"{'$size' if isinstance(part, Size) else '$elemMatch'} is for arrays")
    if isinstance(part, Element):
        assert inner is not None
        return Element(part.path, _fitted_element(part.part, name, inner))
    if isinstance(part, Regex | Glob) and (inner or kind) not in ("string", ID):
        raise _wrong(name, "patterns are for strings")
    assert isinstance(part, Exists | Type | Size | Regex | Glob)
    return part


def _fitted_element(part: Expression, name: str, kind: str) -> Expression:
    if isinstance(part, And | Or):
        return type(part)(tuple(_fitted_element(each, name, kind) for each in part.parts))
    if isinstance(part, Not):
        return Not(_fitted_element(part.part, name, kind))
    if part.path:
        raise _wrong(name, "the elements of its values have no fields")
    return _fitted_leaf(part, name, kind)


def _fit_of(name: str, kind: str) -> Callable[[Any], Any]:
    """What brings an operand to the form of a type's values."""
    inner = element_of(kind)
    scalar = kind if inner is None else inner

    def fit(operand: Any) -> Any:
        if operand is None:
            return None
        if isinstance(operand, list | tuple):
            if inner is None:
                raise _wrong(name, f"it is {_wanted(scalar)}, not a list")
            return [fit(item) for item in operand]
        try:
            return _fitted_scalar(operand, scalar)
        except Unfit:
            raise _wrong(name, f"it is {_wanted(scalar)}, not {shown(operand)}") from None

    return fit


def _fitted_scalar(operand: Any, kind: str) -> Any:
    if kind in ("int", "float"):
        # A number is compared with the other kind of numbers by value.
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            raise Unfit
        try:
            fits = math.isfinite(operand)
        except OverflowError:
            fits = False  # An int that is beyond every float; columns compare with these.
        if not fits:
            raise Unfit
        return operand
    if kind == ID:
        if isinstance(operand, bool) or not isinstance(operand, int | str):
            raise Unfit
        return operand
    return CONVERTS[kind](operand)


def _wanted(kind: str) -> str:
    if kind in ("int", "float"):
        return "compared with a finite number"
    return "an int or a string" if kind == ID else WANTED[kind]


def _wrong(name: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"The filter on {shown(name)}: {why}.")
