"""The model that documents are compared with: plain objects, searched by brute force."""

from __future__ import annotations

from typing import Any

from treestore.errors import NotFound
from treestore.model.documents import Node
from treestore.stores.documents import reading, structure


class ModelNode:
    """One node, with its children in order."""

    def __init__(self, node_id: str, **fields: Any) -> None:
        self.node_id = node_id
        self.title = fields.get("title", "")
        self.page_start = fields.get("page_start")
        self.page_end = fields.get("page_end")
        self.summary = fields.get("summary", "")
        self.text = fields.get("text", "")
        self.metadata: dict[str, Any] = fields.get("metadata", {})
        self.section = fields.get("section")
        self.children: list[ModelNode] = []
        self.children_key = False
        """Whether "nodes" is written even without children."""

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()


class Model:
    """One document."""

    def __init__(self, roots: list[ModelNode]) -> None:
        self.roots = roots

    def walk(self):
        for root in self.roots:
            yield from root.walk()

    def find(self, node_id: str) -> ModelNode:
        return next(node for node in self.walk() if node.node_id == node_id)

    def ids(self) -> list[str]:
        return [node.node_id for node in self.walk()]

    def parent(self, node_id: str) -> ModelNode | None:
        return next((n for n in self.walk() if any(c.node_id == node_id for c in n.children)), None)

    def family(self, parent_id: str | None) -> list[ModelNode]:
        return self.roots if parent_id is None else self.find(parent_id).children

    def nodes(self, policy_id: str, version_id: str) -> list[Node]:
        """Every node as TreeStore must give it, in document order."""
        found: list[Node] = []

        def visit(nodes: list[ModelNode], parent: str | None, depth: int, prefix: str) -> None:
            for position, node in enumerate(nodes, 1):
                section = f"{prefix}{position}"
                found.append(
                    Node(
                        policy_id=policy_id,
                        version_id=version_id,
                        node_id=node.node_id,
                        parent_id=parent,
                        title=node.title,
                        page_start=node.page_start,
                        page_end=node.page_end,
                        summary=node.summary,
                        text=node.text,
                        section_path=node.section or section,
                        depth=depth,
                        child_ids=tuple(child.node_id for child in node.children),
                        metadata=node.metadata,
                    )
                )
                visit(node.children, node.node_id, depth + 1, section + ".")

        visit(self.roots, None, 0, "")
        return found

    def written(self, include_text: bool = True) -> list[dict[str, Any]]:
        """The nested JSON."""

        def write(node: ModelNode) -> dict[str, Any]:
            out = {
                "title": node.title,
                "node_id": node.node_id,
                "start_index": node.page_start,
                "end_index": node.page_end,
                "summary": node.summary,
                **node.metadata,
            }
            if include_text:
                out["text"] = node.text
            if node.section is not None:
                out["section_path"] = node.section
            if node.children or node.children_key:
                out["nodes"] = [write(child) for child in node.children]
            return out

        return [write(root) for root in self.roots]


def touches(node: Node, first: int, last: int) -> bool:
    """Whether the node's own pages meet ``first`` to ``last``, as documented."""
    start = node.page_start if node.page_start is not None else node.page_end
    end = node.page_end if node.page_end is not None else node.page_start
    return start is not None and end is not None and max(start, first) <= min(end, last)


def compare_reads(txn: Any, policy_id: str, version_id: str, nodes: list[Node]) -> None:
    """Every read of every node against ``nodes`` (all of them, in document order)."""
    args: dict[str, Any] = {"version_id": version_id}
    position = {node.node_id: i for i, node in enumerate(nodes)}
    assert reading.get_subtree(txn, policy_id, **args) == nodes
    assert reading.get_children(txn, policy_id, **args) == [n for n in nodes if n.depth == 0]
    assert reading.get_nodes(txn, policy_id, list(position)[::-1], **args) == nodes[::-1]
    document = reading.get(txn, policy_id, version_id)
    assert document.node_count == len(nodes)
    assert list(document.root_ids) == [n.node_id for n in nodes if n.depth == 0]
    for levels in (0, 1, 2):
        expected = [n for n in nodes if n.depth <= levels]
        assert reading.get_subtree(txn, policy_id, max_depth=levels, **args) == expected
    for node in nodes:
        compare_node(txn, policy_id, version_id, nodes, position, node)
    for first, last in ((1, 1), (3, 4), (0, 100), (7, 30), (99, 10**9)):
        expected = [n for n in nodes if touches(n, first, last)]
        assert reading.get_nodes_by_page(txn, policy_id, f"{first}-{last}", **args) == expected


def compare_node(
    txn: Any,
    policy_id: str,
    version_id: str,
    nodes: list[Node],
    position: dict[str, int],
    node: Node,
) -> None:
    """Every read of one node."""
    args: dict[str, Any] = {"version_id": version_id}
    name = node.node_id
    start = position[name]
    end = start + 1
    while end < len(nodes) and nodes[end].depth > node.depth:
        end += 1
    subtree = nodes[start:end]
    assert reading.get_node(txn, policy_id, name, **args) == node
    assert reading.get_subtree(txn, policy_id, name, **args) == subtree
    for levels in (0, 1, 2):
        expected = [n for n in subtree if n.depth <= node.depth + levels]
        assert reading.get_subtree(txn, policy_id, name, max_depth=levels, **args) == expected
    outline = reading.get_subtree(txn, policy_id, name, include_text=False, **args)
    assert [n.node_id for n in outline] == [n.node_id for n in subtree]
    assert not any(n.text for n in outline)
    children = [n for n in subtree if n.depth == node.depth + 1]
    assert reading.get_children(txn, policy_id, name, **args) == children
    bare = reading.get_children(txn, policy_id, name, include_text=False, **args)
    assert [n.title for n in bare] == [n.title for n in children]
    ancestors = [node]
    while ancestors[0].parent_id is not None:
        ancestors.insert(0, nodes[position[ancestors[0].parent_id]])
    assert reading.get_ancestor_path(txn, policy_id, name, **args) == ancestors


def compare_gone(txn: Any, policy_id: str, version_id: str) -> None:
    """Nothing answers for a document that is not stored."""
    args: dict[str, Any] = {"version_id": version_id}
    for read in (
        lambda: reading.get(txn, policy_id, version_id),
        lambda: reading.get_subtree(txn, policy_id, **args),
        lambda: reading.get_children(txn, policy_id, **args),
        lambda: reading.get_nodes(txn, policy_id, [], **args),
        lambda: reading.get_node(txn, policy_id, "0000", **args),
        lambda: reading.get_nodes_by_page(txn, policy_id, 1, **args),
        lambda: structure.get_structure(txn, policy_id, **args),
    ):
        try:
            read()
        except NotFound:
            continue
        raise AssertionError("a read of a document that is not stored gave an answer")
