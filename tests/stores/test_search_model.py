"""Searches against a computation that looks at every node, at every state that is still open.

The engine is real, its disk is simulated; the index is real and its folder is wherever temporary
files are quick. What the actors decide (when to index, when to rebuild) is decided by Hypothesis.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from actors.overlay import Overlay
from tests.crash.simdisk import SimDisk
from tests.engine.stores import SMALL, close_checked, open_small
from treestore.engine.changes import notes_of
from treestore.errors import NotFound, TreeStoreError
from treestore.search.languages import analyzer
from treestore.stores.documents import editing, reading, storing
from treestore.stores.documents.history import History
from treestore.stores.documents.searching import (
    Basis,
    make_request,
    policies_to_ask,
    search,
)
from treestore.stores.documents.text_index import Identity, TextIndex, day_of
from treestore.stores.documents.text_rows import facts_of
from treestore.stores.documents.touched import Changes, all_places
from treestore.stores.versions import changing

QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None

WORDS = ["tax", "taxes", "house", "Houses", "owner", "of", "the", "school", "self-employed", "Haus"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
POLICIES = st.sampled_from(["p", "q\0r"])
VERSIONS = st.sampled_from(["1", "2", "3"])
NODE_IDS = st.sampled_from(["a", "b", "c", "d", "0000", "0001"])
LANGUAGES = st.sampled_from(["english", "english", "german", "none"])
LONG = "house " * 300
"""A text that has a key of its own."""


@st.composite
def structures(draw: st.DrawFn) -> list[dict[str, Any]]:
    def node(depth: int) -> dict[str, Any]:
        children = draw(st.integers(0, 2 if depth < 2 else 0))
        its: dict[str, Any] = {"title": draw(TEXT), "text": draw(TEXT)}
        if draw(st.booleans()):
            its["summary"] = draw(TEXT)
        if draw(st.integers(0, 5)) == 0:
            its["text"] += LONG
        if children:
            its["nodes"] = [node(depth + 1) for _ in range(children)]
        return its

    return [node(0) for _ in range(draw(st.integers(1, 3)))]


def stems(language: str, text: str) -> list[tuple[int, str]]:
    return [(word.position, word.text) for word in analyzer(language).words(text)]


def holds(language: str, texts: list[str], query: list[str], mode: str) -> bool:
    """Whether a node of these texts fits, computed without any index."""
    if mode == "phrase":
        wanted = stems(language, " ".join(query))
        if not wanted:
            return False
        for text in texts:
            found = set(stems(language, text))
            for at, stem in found:
                if stem == wanted[0][1] and all(
                    (at + position - wanted[0][0], other) in found for position, other in wanted
                ):
                    return True
        return False
    answers = []
    for word in query:
        parts = stems(language, word)
        if not parts:
            continue  # a stop word
        if mode == "all" and len(parts) > 1:
            answers.append(holds(language, texts, [word], "phrase"))
            continue
        its = {stem for text in texts for _, stem in stems(language, text)}
        answers.append(any(stem in its for _, stem in parts))
    return bool(answers) and (any(answers) if mode == "any" else all(answers))


class SearchMachine(RuleBasedStateMachine):
    snapshots = Bundle("snapshots")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=QUICK))
        self.opened = open_small(SimDisk(), attrs.evolve(SMALL, page_size_bytes=4096))
        self.engine = self.opened.engine
        self.open_index()

    def open_index(self) -> None:
        """As the indexer does."""
        identity = self.engine.identity
        state = self.engine.durable
        self.index = TextIndex(
            self.folder / "index",
            Identity(identity.database_uuid, identity.timeline),
            lambda: None,
        )
        position = self.index.open(self.engine.read(), state.position.lsn)
        if position is None:
            for _ in self.index.rebuild(self.engine.read(), state.position):
                pass
            position = state.position
        self.history = History(
            lambda after, until: notes_of(self.engine.log.groups_after(after, until)), position
        )
        self.history.advance(state.position)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> None:
        txn = self.engine.begin()
        try:
            function(txn, *args, **kwargs)
        except TreeStoreError:
            self.engine.rollback(txn)
            return
        self.engine.write_now(txn)

    # -- what is written --------------------------------------------------------------------------

    @rule(
        policy=POLICIES,
        version=VERSIONS,
        structure=structures(),
        language=LANGUAGES,
        start=st.none() | st.sampled_from(["2020-01-01", "2023-11-10", "2023-11-16"]),
    )
    def store(
        self, policy: str, version: str, structure: Any, language: str, start: str | None
    ) -> None:
        self.run(storing.store(policy, version, structure, language=language, effective_from=start))

    @rule(policy=POLICIES, version=VERSIONS, node=NODE_IDS, title=TEXT, text=TEXT)
    def update(self, policy: str, version: str, node: str, title: str, text: str) -> None:
        self.run(editing.update_node, policy, node, version_id=version, title=title, text=text)

    @rule(policy=POLICIES, version=VERSIONS, node=NODE_IDS)
    def lengthen(self, policy: str, version: str, node: str) -> None:
        self.run(editing.update_node, policy, node, version_id=version, text=LONG + "school")

    @rule(policy=POLICIES, version=VERSIONS, node=NODE_IDS, parent=st.none() | NODE_IDS, text=TEXT)
    def insert(self, policy: str, version: str, node: str, parent: str | None, text: str) -> None:
        new = {"node_id": node, "parent_id": parent, "text": text, "index": 0}
        self.run(editing.insert_nodes, policy, [new], version_id=version)

    @rule(policy=POLICIES, version=VERSIONS, node=NODE_IDS)
    def delete_node(self, policy: str, version: str, node: str) -> None:
        self.run(editing.delete_node, policy, node, version_id=version)

    @rule(policy=POLICIES, version=VERSIONS, node=NODE_IDS, parent=st.none() | NODE_IDS)
    def move(self, policy: str, version: str, node: str, parent: str | None) -> None:
        self.run(editing.move_node, policy, node, parent_id=parent, version_id=version, index=0)

    @rule(policy=POLICIES, version=VERSIONS)
    def delete(self, policy: str, version: str) -> None:
        self.run(storing.delete, policy, version)

    @rule(policy=POLICIES, version=VERSIONS, end=st.sampled_from(["2022-01-01", "2023-11-15"]))
    def retire(self, policy: str, version: str, end: str) -> None:
        self.run(changing.retire, policy, version, end)

    @rule(policy=POLICIES)
    def delete_policy(self, policy: str) -> None:
        self.run(storing.delete_policy, policy)

    @rule(days=st.integers(1, 3), update=st.booleans())
    def days_pass(self, days: int, update: bool) -> None:
        clock: Any = self.engine.environment.clock_ns
        clock.now_ns += int(timedelta(days=days).total_seconds()) * 10**9
        if update:
            self.catch_up()
        txn, lsn = self.engine.read(), self.engine.durable.position.lsn
        self.history.advance(self.engine.durable.position)
        assert self.index.view.day != day_of(txn)  # As the indexer sees that there is more to do.
        self.index.begin_day(txn, self.changes_since_index(lsn))

    # -- what the indexer does --------------------------------------------------------------------

    @rule()
    def catch_up(self) -> None:
        state = self.engine.durable
        self.history.advance(state.position)
        changes = self.changes_since_index(state.position.lsn)
        for _ in self.index.update(self.engine.read(), state.position, changes):
            pass

    def changes_since_index(self, lsn: int) -> Changes:
        assert self.index.view.lsn is not None
        changes = self.history.between(self.index.view.lsn, lsn)
        assert changes is not None
        assert not changes.everything
        return changes

    @rule()
    def freshen(self) -> None:
        self.catch_up()
        for _ in self.index.freshen(self.engine.read(), self.engine.durable.position):
            pass
        assert not self.index.view.stale

    @rule()
    def forget(self) -> None:
        assert self.index.view.lsn is not None
        oldest = [lease.state.position.lsn for lease in self.engine.snapshots()]
        self.history.forget_before(min([self.index.view.lsn, *oldest]))

    @rule()
    def rebuild(self) -> None:
        for _ in self.index.rebuild(self.engine.read(), self.engine.durable.position):
            pass
        self.history.advance(self.engine.durable.position)

    @precondition(lambda self: not self.engine.snapshots())
    @rule(lose=st.booleans())
    def reopen_index(self, lose: bool) -> None:
        """The process ends and begins again, perhaps without the folder."""
        self.index.close()
        if lose:
            shutil.rmtree(self.folder / "index", ignore_errors=True)
        self.open_index()

    @rule()
    def half_an_update(self) -> None:
        """The process is killed before the commit."""
        if self.engine.snapshots():
            return
        state = self.engine.durable
        self.history.advance(state.position)
        changes = self.changes_since_index(state.position.lsn)
        steps: Any = self.index.update(self.engine.read(), state.position, changes)
        next(steps, None)
        steps.close()
        self.index.close()
        self.open_index()

    # -- searches ---------------------------------------------------------------------------------

    @rule(target=snapshots)
    def open_snapshot(self) -> Any:
        return self.engine.snapshot("test")

    @rule(snapshot=consumes(snapshots))
    def close_snapshot(self, snapshot: Any) -> None:
        snapshot.close()

    @rule(
        snapshot=st.none() | snapshots,
        query=st.lists(st.sampled_from([*WORDS, "nothing"]), min_size=1, max_size=3),
        mode=st.sampled_from(["any", "all", "phrase"]),
        scope=st.none() | POLICIES,
        version=st.none() | VERSIONS,
        fields=st.none() | st.sampled_from([["title"], ["text"], ["summary", "title"]]),
    )
    def search(
        self,
        snapshot: Any,
        query: list[str],
        mode: Any,
        scope: str | None,
        version: str | None,
        fields: list[str] | None,
    ) -> None:
        version = None if scope is None else version
        self.search_in(snapshot, query, mode, scope, version, fields)

    @rule(
        writes=st.lists(
            st.tuples(st.sampled_from(["update", "insert", "delete", "store", "move"]), POLICIES,
                      VERSIONS, NODE_IDS, TEXT),
            max_size=4,
        ),
        query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        mode=st.sampled_from(["any", "all", "phrase"]),
        scope=st.none() | POLICIES,
    )  # fmt: skip
    def search_in_transaction(self, writes: Any, query: list[str], mode: Any, scope: Any) -> None:
        """With what is written in it, none of which was committed."""
        core = self.engine.optimistic("test")
        overlay = Overlay(core)
        try:
            for number, write in enumerate(writes):
                command = core.command(raw=False)
                with suppress(TreeStoreError):
                    self.write_in(command, *write)
                    core.keep(command)
                if number % 2:
                    overlay.changes()
            self.check(overlay.read(raw=False), core.lease.state.position.lsn, query, mode, scope,
                       None, None, own=overlay.changes())  # fmt: skip
        finally:
            core.close()

    def write_in(
        self, txn: Any, what: str, policy: str, version: str, node: str, text: str
    ) -> None:
        its: dict[str, Any] = {"version_id": version}
        if what == "update":
            editing.update_node(txn, policy, node, title=text, **its)
        elif what == "insert":
            new = {"node_id": node, "parent_id": None, "text": text + LONG, "index": 0}
            editing.insert_nodes(txn, policy, [new], **its)
        elif what == "delete":
            editing.delete_node(txn, policy, node, **its)
        elif what == "move":
            editing.move_node(txn, policy, node, parent_id=None, index=0, **its)
        elif text:
            storing.store(policy, version, [{"node_id": node, "text": text}])(txn)
        else:
            storing.delete(txn, policy, version)

    def search_in(
        self,
        snapshot: Any,
        query: list[str],
        mode: Any,
        scope: str | None,
        version: str | None,
        fields: list[str] | None,
    ) -> None:
        lease = self.engine.snapshot("search") if snapshot is None else snapshot
        try:
            self.check(lease.read(), lease.state.position.lsn, query, mode, scope, version, fields)
        finally:
            if snapshot is None:
                lease.close()

    def check(
        self,
        txn: Any,
        lsn: int,
        query: list[str],
        mode: Any,
        scope: str | None,
        version: str | None,
        fields: list[str] | None,
        own: Changes | None = None,
    ) -> None:
        request = make_request(
            " ".join(query), policy_id=scope, version_id=version, fields=fields, top_k=1000,
            mode=mode, language=None, fuzzy=0, include_text=True,
        )  # fmt: skip
        self.history.advance(self.engine.durable.position)
        changes = Changes()

        def ask(view: Any) -> frozenset[bytes]:
            nonlocal changes
            found = self.history.between(view.lsn, lsn)
            assert found is not None
            changes = found
            if own is not None:
                changes.add(own)
            return policies_to_ask(found, view)

        view, marks = self.index.basis(ask)
        try:
            hits = search(txn, request, Basis(view, self.index.schema, marks, changes, 10_000))
        except NotFound:
            assert self.expected(txn, query, mode, scope, version, fields) is None
        else:
            found = [(hit.node.policy_id, hit.node.version_id, hit.node.node_id) for hit in hits]
            assert len(set(found)) == len(found)
            expected = self.expected(txn, query, mode, scope, version, fields)
            assert set(found) == expected
            for hit in hits:
                # As a whole the same as in the snapshot.
                place = (hit.node.policy_id, hit.node.node_id)
                node = reading.get_node(txn, *place, version_id=hit.node.version_id)
                assert hit.node == node
            assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)

    def expected(
        self,
        txn: Any,
        query: list[str],
        mode: str,
        scope: str | None,
        version: str | None,
        fields: list[str] | None,
    ) -> set[tuple[str, str, str]] | None:
        found: set[tuple[str, str, str]] = set()
        for policy in ["p", "q\0r"] if scope is None else [scope]:
            try:
                document = reading.get(txn, policy, version)
            except NotFound:
                if scope is not None:
                    return None
                continue
            nodes = reading.get_subtree(txn, policy, version_id=document.version_id)
            for node in nodes:
                texts = [getattr(node, name) for name in fields or ["title", "summary", "text"]]
                if holds(document.language, texts, query, mode):
                    found.add((policy, document.version_id, node.node_id))
        return found

    @invariant()
    def everything_is_found(self) -> None:
        """After every step, in every state that is open."""
        if not hasattr(self, "engine"):
            return
        for snapshot in [None, *self.engine.snapshots()]:
            for query, mode in ((["tax", "house"], "any"), (["house", "owner"], "all")):
                self.search_in(snapshot, query, mode, None, None, None)

    @invariant()
    def counts(self) -> None:
        """An index that shows the newest state has a row for each of its nodes."""
        if not hasattr(self, "engine") or self.index.view.lsn != self.engine.durable.position.lsn:
            return
        txn = self.engine.read()
        facts = [facts_of(txn, place) for place in all_places(txn)]
        assert self.index.rows() == sum(its[1] for its in facts if its is not None)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.index.close()
            close_checked(self.opened)
            shutil.rmtree(self.folder, ignore_errors=True)


SearchMachine.TestCase.settings = settings(stateful_step_count=25)
test_searches_find_what_every_node_says = SearchMachine.TestCase
