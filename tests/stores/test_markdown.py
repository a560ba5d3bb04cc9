"""Markdown becomes a tree, and no line of it is lost."""

from __future__ import annotations

import json
import lzma

from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore
from treestore.stores.documents import reading, storing
from treestore.stores.documents.markdown import parse_markdown

TEXT = """\
---
title: front matter
# not a heading
---
Before the first heading.

# One #
own text
### Three levels down
```python
# not a heading
~~~
```
##Not a heading
#### Four
## Two
~~~~ info
```
# no
~~~
~~~~
#
#\tTab
    # indented code
####### seven
"""


def titles(nodes, depth=0):
    for node in nodes:
        yield depth, node["title"], node["line_num"]
        yield from titles(node.get("nodes", []), depth + 1)


def test_headings():
    tree = parse_markdown(TEXT, doc_name="x.md")
    assert list(titles(tree["structure"])) == [
        (0, "Preface", 1),
        (0, "One", 7),
        (1, "Three levels down", 9),
        (2, "Four", 15),
        (1, "Two", 16),
        (0, "", 22),
        (0, "Tab", 23),
    ]
    assert tree["doc_name"] == "x.md"
    assert tree["line_count"] == 26
    assert tree["structure"][1]["text"] == "# One #\nown text"
    assert "nodes" not in tree["structure"][2]


def texts(nodes):
    for node in nodes:
        yield node["text"]
        yield from texts(node.get("nodes", []))


LINES = st.lists(
    st.sampled_from(
        ["# a", "## b", "### c", "text", "", "```", "~~~", "---", "    # d", "#", "\ufeff"]
    )
    | st.text(alphabet="# `~ab\u2028\x0b", max_size=8)
)


@given(LINES, st.sampled_from(["\n", "\r\n"]))
def test_nothing_is_lost(lines, newline):
    tree = parse_markdown(newline.join(lines))
    found = "\n".join(texts(tree["structure"]))
    assert "".join(found.split()) == "".join("\n".join(lines).removeprefix("\ufeff").split())
    store = FakeStore()
    store.prepared(storing.store, "p", "v", tree)
    assert [n.text for n in reading.get_subtree(store.txn, "p")] == list(texts(tree["structure"]))


def test_like_pageindex(data_directory):
    wanted = json.loads(
        (data_directory / "pageindex" / "markdown-shape_structure.json").read_text()
    )
    packed = data_directory / "estonian-law" / "27072.versions.jsonl.xz"
    trees = []
    for line in lzma.decompress(packed.read_bytes()).splitlines():
        tree = parse_markdown(json.loads(line)["markdown"], doc_name="27072")
        trees.append(tree)
        if tree["line_count"] != wanted["line_count"]:
            continue
        assert tree["structure"][0]["title"] == "Preface"
        plain = [(t, n) for _, t, n in titles(tree["structure"][1:])]
        if plain == [(t, n) for _, t, n in titles(wanted["structure"])]:
            assert list(texts(tree["structure"][1:])) == list(texts(wanted["structure"]))
            return
    raise AssertionError("no version of the law gives the tree that the data holds")
