"""Projections: which fields of a document are given.

Either those that are named (and the id, unless it is named as left out), or all but those. A path
goes through objects, and through lists into each of their elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument
from treestore.query.sorting import parse_path

FIELDS_MAX: Final = 1000
"""Paths of one projection."""

Tree = dict[str, Any]
"""What is chosen below an object: a name → a tree, or None for everything below."""


@attrs.frozen
class Projection:
    """Chooses fields. Made by `parse_fields`.

    Attributes:
        include: whether the fields of ``tree`` are given, or all others.
        tree: the fields.
        with_id: including, whether the id is given though it is not named.
    """

    include: bool
    tree: Tree = attrs.field(eq=False)
    with_id: bool = True

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """The chosen part of a document, in the document's order."""
        if not self.include:
            rest: dict[str, Any] = _excluded(document, self.tree)
            return rest
        tree = self.tree
        if self.with_id:
            id_name = "_id" if "_id" in document else "id"
            if tree.get(id_name, False) is not None:
                tree = {**tree, id_name: None}
        return _included_fields(document, tree)


def parse_fields(fields: Any) -> Projection | None:
    """The projection that ``fields`` names; None gives whole documents.

    Args:
        fields: a list of paths to give (``"-"`` in front: to leave out), or an object of paths and
            1 (or True) or 0 (or False). Except for the id it is one or the other.

    Raises:
        InvalidArgument: it is none of these; the sentence says what is wrong.
    """
    if fields is None:
        return None
    wanted = _wanted(fields)
    if len(wanted) > FIELDS_MAX:
        raise InvalidArgument(f"fields has {len(wanted)} paths; at most {FIELDS_MAX}.")
    with_id = True
    tree: Tree = {}
    kinds: set[bool] = set()
    ids: list[tuple[str, bool]] = []
    for name, include in wanted.items():
        path = parse_path(name, "fields")
        if path == ("_id",):
            ids.append(("_id", include))
            continue
        kinds.add(include)
        _grow(tree, path)
    if len(kinds) > 1:
        raise InvalidArgument(
            "fields names either the fields to give or those to leave out (only _id may be left "
            "out beside fields to give)."
        )
    if ids:
        included = ids[0][1]
        if not kinds:
            # The id alone, or all but the id.
            return Projection(included, {} if included else {"_id": None})
        if True in kinds:
            with_id = included
        elif included:
            raise InvalidArgument("fields leaves fields out, so _id is given without being named.")
        else:
            tree["_id"] = None
    return Projection(False not in kinds, tree, with_id)


def _wanted(fields: Any) -> dict[Any, bool]:
    if isinstance(fields, str):
        fields = [fields]
    if isinstance(fields, Mapping):
        wanted: dict[Any, bool] = {}
        for name, choice in fields.items():
            if not isinstance(choice, int | float) or choice not in (0, 1):
                raise InvalidArgument(
                    f"fields.{name!s:.60} is 1 to give the field or 0 to leave it out, not "
                    f"{choice!r:.40}."
                )
            wanted[name] = bool(choice)
        return wanted
    if not isinstance(fields, list | tuple):
        raise InvalidArgument(
            f"fields is a list of paths, or an object of paths and 1 or 0, not "
            f"{type(fields).__name__}."
        )
    found: dict[Any, bool] = {}
    for name in fields:
        if not isinstance(name, str):
            raise InvalidArgument(f"fields: a path is a string, not {type(name).__name__}.")
        leave_out = name.startswith("-")
        found[name[leave_out:]] = not leave_out
    return found


def _grow(tree: Tree, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if inner is None:
            return  # All of it is chosen already.
        tree = inner
    tree[path[-1]] = None


def _included(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        return _included_fields(value, tree)
    # Of lists the objects in them; what a path cannot enter is left out.
    return [_included(each, tree) for each in value if isinstance(each, dict | list | tuple)]


def _included_fields(document: dict[str, Any], tree: Tree) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name in tree:
            inner = tree[name]
            if inner is None:
                found[name] = value
            elif isinstance(value, dict | list | tuple):
                found[name] = _included(value, inner)
    return found


def _excluded(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for name, each in value.items():
            if name not in tree:
                found[name] = each
            elif tree[name] is not None:
                found[name] = _excluded(each, tree[name])
        return found
    if isinstance(value, list | tuple):
        return [_excluded(each, tree) for each in value]
    return value
