"""Edits of stored documents: insert, update, delete and move nodes.

What an edit costs: the records it names, their parents (whose record lists the children) and the
document's own. Where an edit in the middle changes the position of what follows, the positional
``section_path`` of the following siblings and of all below them is rewritten in the same
transaction; appending at the end rewrites nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Final

from msgspec import UNSET, UnsetType

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.stores.access import Write
from treestore.stores.documents.build import (
    Builder,
    Top,
    check_page,
    check_text,
)
from treestore.stores.documents.editor import Editor
from treestore.stores.documents.forest import Forest, link
from treestore.stores.documents.layout import (
    DEPTH_MAX,
    HEAD,
    TEXT,
    fields_of,
    head_end_of,
    level_ends,
    make_record,
    packed_node_id,
    parent_path,
    source_of,
)
from treestore.stores.documents.pages import page_item
from treestore.stores.documents.policies import place_to_edit
from treestore.stores.documents.reading import path_of, whole
from treestore.stores.documents.shapes import Plan, Shapes, renamed, without_overrides
from treestore.stores.documents.source import Entry, children_key, nested_entries
from treestore.stores.json_values import DEPTH_MAX as JSON_DEPTH_MAX
from treestore.stores.json_values import (
    JsonObject,
    check_json,
    check_metadata,
    encode,
    not_json,
    shown,
)
from treestore.stores.operation import Wire


def _loaded(editor: Editor, node_id: str) -> Node:
    path = path_of(editor.txn, editor.place, node_id)
    return editor.txn.load(Node, whole(editor.txn, editor.place, path))


def check_index(index: Any) -> None:
    """Raise `InvalidArgument` unless it can be a position among siblings, or None."""
    if index is not None and (isinstance(index, bool) or not isinstance(index, int) or index < 0):
        raise InvalidArgument(f"index is a position, 0 or more, not {index!r:.40}.")


NESTING_MAX: Final = 2 * DEPTH_MAX + JSON_DEPTH_MAX
"""Levels of lists and objects in nodes that are nested in one another, the metadata of the last
included."""

Nodes = Annotated[
    list[dict[str, Any]],
    Wire(list[dict[str, Any]], check=partial(check_json, depth_max=NESTING_MAX)),
]
"""A list of node dicts."""


# --- insert ----------------------------------------------------------------------------------


def insert_nodes(
    txn: Write,
    policy_id: str,
    nodes: Nodes,
    *,
    version_id: str | None = None,
) -> list[Node]:
    """Put nodes into a document: all of them or, on any error, none.

    A node is a dict as in `store`: ``title``, ``text``, ``page_start`` (or ``start_index``), …,
    with ``node_id`` (assigned where it is missing), ``parent_id`` (missing: a root) and ``index``
    (its position among its siblings when its turn comes, 0 the first; missing: the last). A
    parent may be among the nodes themselves; children may also be nested under ``nodes``.

    Args:
        version_id: None is allowed while the policy has one version.

    Returns:
        The new nodes in the order given, each followed by those nested in it.

    Raises:
        InvalidArgument: an id is in use, a parent is unknown, an index lies beyond the end.
        NotFound: there is no such document.
    """
    if not isinstance(nodes, list | tuple):
        raise InvalidArgument(f"nodes is a list of node dicts, not {type(nodes).__name__}.")
    editor = Editor(txn, place_to_edit(txn, policy_id, version_id))
    entries, positions = _entries(list(nodes))
    forest = link(
        entries,
        by_id=True,
        first_number=editor.source.next_number,
        exists=editor.exists,
        positions=positions,
    )
    _dress(forest, editor.shapes)
    index_of = dict(zip((n for n, e in enumerate(entries) if not e[0]), positions, strict=True))
    for roots in _runs(forest, index_of):
        _insert_run(editor, forest.part(roots), index_of[roots[0]])
    editor.nodes_added = len(forest.ids)
    editor.source.next_number = max(editor.source.next_number, forest.next_number)
    editor.source.ordered = True
    editor.finish()
    return [_loaded(editor, node_id) for node_id in forest.ids]


def _entries(nodes: list[Any]) -> tuple[list[Entry], list[int | None]]:
    """The nodes, with the nested ones after their parents, and the topmost ones' indexes."""
    entries: list[Entry] = []
    positions: list[int | None] = []
    for depth, given in nested_entries(nodes):
        node = dict(given)
        if depth == 0:
            index = node.pop("index", None)
            check_index(index)
            positions.append(index)
        key = children_key(node)
        if key is not None:
            del node[key]
        entries.append((depth, node))
    return entries, positions


def _dress(forest: Forest, shapes: Shapes) -> None:
    """Write the nodes as this document writes its nodes."""
    for number, node in enumerate(forest.maps):
        assert node is not None
        new = renamed(node, shapes.flat, shapes.names)
        if "node_id" in shapes.names or new.get("node_id"):
            new["node_id"] = forest.ids[number]
        if shapes.flat:
            parent = forest.parents[number]
            new["parent_id"] = forest.ids[parent] if parent >= 0 else forest.anchors.get(number)
        forest.maps[number] = new


def _runs(forest: Forest, index_of: dict[int, int | None]) -> Iterator[list[int]]:
    """The roots, with those together that go to the same place one after the other."""
    run: list[int] = []
    for number in forest.roots:
        if run and forest.anchors.get(run[0]) == forest.anchors.get(number):
            first, index = index_of[run[0]], index_of[number]
            if (first is None and index is None) or (
                first is not None and index == first + len(run)
            ):
                run.append(number)
                continue
        if run:
            yield run
        run = [number]
    if run:
        yield run


def _insert_run(editor: Editor, forest: Forest, index: int | None) -> None:
    parent_id = forest.anchors.get(forest.roots[0])
    parent = b"" if parent_id is None else path_of(editor.txn, editor.place, parent_id)
    index, paths = editor.make_room(parent, index, len(forest.roots))
    prefix = f"{editor.section(parent)}." if parent else ""
    depth = len(level_ends(parent))
    tops = [Top(path, parent_id, depth, f"{prefix}{index + i + 1}") for i, path in enumerate(paths)]
    builder = Builder(editor.place, editor.shapes)
    builder.add(forest, tops, keep_positions=False)
    editor.txn.put_sorted(builder.items())
    siblings = editor.children(parent)
    siblings[index:index] = [forest.ids[root] for root in forest.roots]
    editor.set_children(parent, siblings)
    editor.renumber(parent, index + len(paths))


# --- update ----------------------------------------------------------------------------------


def update_node(
    txn: Write,
    policy_id: str,
    node_id: str,
    *,
    version_id: str | None = None,
    title: str | UnsetType = UNSET,
    page_start: int | UnsetType | None = UNSET,
    page_end: int | UnsetType | None = UNSET,
    summary: str | UnsetType = UNSET,
    text: str | UnsetType = UNSET,
    section_path: str | UnsetType | None = UNSET,
    metadata: JsonObject | UnsetType | None = UNSET,
) -> Node:
    """Change some fields of a node; those left UNSET stay as they are.

    Args:
        version_id: None is allowed while the policy has one version.
        title: "" for none.
        page_start: first page; None for none.
        page_end: last page, inclusive; None for none.
        summary: "" for none.
        text: the node's own text.
        section_path: None goes back to the position ("1.2.3").
        metadata: takes the place of all the node's metadata; None for none.

    Raises:
        NotFound: there is no such node or document.
        InvalidArgument: a value of the wrong type; without ``version_id``, several versions.
    """
    editor = Editor(txn, place_to_edit(txn, policy_id, version_id))
    path = path_of(txn, editor.place, node_id)
    changes: dict[str, Any] = {}
    for name, value in (("title", title), ("summary", summary), ("text", text)):
        if value is not UNSET:
            changes[name] = check_text(value, name)
    for name, page in (("page_start", page_start), ("page_end", page_end)):
        if page is not UNSET:
            changes[name] = check_page(page, name)
    if metadata is not UNSET:
        changes["metadata"] = check_metadata(metadata)
    if section_path is not UNSET:
        given = None if section_path is None else check_text(section_path, "section_path")
        changes["section_path"] = given or editor.section(path)
    try:
        _rewrite(editor, path, changes, section_path)
    except UnicodeEncodeError as error:
        raise not_json(error, f"Node {shown(node_id)}") from None
    editor.finish()
    return _loaded(editor, node_id)


def _rewrite(
    editor: Editor, path: bytes, changes: dict[str, Any], section_path: str | UnsetType | None
) -> None:
    txn, place = editor.txn, editor.place
    record = editor.record(path)
    key = place.nodes + path
    packed_text = record[head_end_of(record) :] or txn.get(key + TEXT) or b""
    if "text" in changes:
        packed_text = encode(changes["text"])
    node = fields_of(record)
    before = page_item(place, path, node["page_start"], node["page_end"])
    node.update(changes)
    node["text"] = ""
    after = page_item(place, path, node["page_start"], node["page_end"])
    source = source_of(record)
    plan = editor.shapes.plans[source[0]]
    source = without_overrides(source, _keys_of(plan, changes))
    if section_path is not UNSET:
        keys = tuple(key for key in plan.keys if key != "section_path")
        if section_path:
            keys = (*keys, "section_path")
        source[0] = editor.shapes.plan(keys).number
    record, long_text = make_record(encode(node)[:-1], packed_text, encode(source))
    txn.put(key + HEAD, record)
    if long_text is not None:
        txn.put(key + TEXT, long_text)
    else:
        txn.delete(key + TEXT)
    if before != after:
        if before is not None:
            txn.delete(before[0])
        if after is not None:
            txn.put(*after)


def _keys_of(plan: Plan, roles: dict[str, Any]) -> set[str]:
    """The keys of the shape that say something about the changed fields."""
    keys = {key for key, role in plan.roles.items() if role in roles}
    if "metadata" in roles:
        keys.update(plan.unknown)
    return keys


# --- delete and move -------------------------------------------------------------------------


def delete_node(txn: Write, policy_id: str, node_id: str, *, version_id: str | None = None) -> int:
    """Remove a node and everything below it.

    Args:
        version_id: None is allowed while the policy has one version.

    Returns:
        How many nodes were removed; 0 where the document has no such node.

    Raises:
        NotFound: there is no such document.
    """
    editor = Editor(txn, place_to_edit(txn, policy_id, version_id))
    path = txn.get(editor.place.ids + packed_node_id(node_id))
    if path is None:
        return 0
    parent, index = _leave(editor, path, node_id)
    removed = sum(1 for key, _ in editor.take(path) if key[-1:] == HEAD)
    editor.renumber(parent, index)
    editor.nodes_added = -removed
    editor.finish()
    return removed


def _leave(editor: Editor, path: bytes, node_id: str) -> tuple[bytes, int]:
    """Take a node out of its family's list; its parent's path and the index it had."""
    parent = parent_path(path)
    siblings = editor.children(parent)
    index = siblings.index(node_id)
    del siblings[index]
    editor.set_children(parent, siblings)
    return parent, index


def move_node(
    txn: Write,
    policy_id: str,
    node_id: str,
    *,
    parent_id: str | None,
    index: int | None = None,
    version_id: str | None = None,
) -> Node:
    """Move a node, with everything below it, to another place in its document.

    Args:
        parent_id: the new parent, or the present one; None makes it a root.
        index: its position among its siblings once it is there, 0 the first; None: the last.
        version_id: None is allowed while the policy has one version.

    Raises:
        InvalidArgument: the new parent is the node itself or lies below it; the index lies beyond
            the end.
        NotFound: there is no such node, parent or document.
    """
    check_index(index)
    editor = Editor(txn, place_to_edit(txn, policy_id, version_id))
    path = path_of(txn, editor.place, node_id)
    goal = b"" if parent_id is None else path_of(txn, editor.place, parent_id)
    if goal.startswith(path):
        raise InvalidArgument(
            f"Node {shown(node_id)} cannot move below itself: {shown(parent_id)} is that node or "
            f"one below it."
        )
    parent, old_index = _leave(editor, path, node_id)
    items = editor.take(path)
    if parent != goal:
        editor.renumber(parent, old_index)
    index, paths = editor.make_room(goal, index, 1)
    deeper = len(level_ends(paths[0])) - len(level_ends(path))
    editor.graft(items, path, paths[0], deeper=deeper, parent_id=parent_id)
    siblings = editor.children(goal)
    siblings.insert(index, node_id)
    editor.set_children(goal, siblings)
    editor.renumber(goal, min(index, old_index) if parent == goal else index)
    editor.source.ordered = True
    editor.finish()
    return _loaded(editor, node_id)
