"""The documents' full-text index: what is in its folder, how far it goes, and how it follows.

Its content is that of exactly one state of the tree (`View.lsn`); a search of another state looks
at the nodes that differ one by one (``searching.py``). Invariants, in ``docs/search.md`` with
their reasons:

1. The marker of a commit names database, timeline, analysis and log position, and is committed
   together with the rows. What does not fit is not opened, but made again.
2. A row is added for each node of the state, deleted by the node's checksum before.
3. ``marks``: documents whose rows say ``live``. Where that is no longer the version in effect, the
   policy is *stale*: searches correct for it, until its rows are written again.

Threads: one caller at a time writes (`open`, `rebuild`, `update`, `freshen`, `close`); `view` and
`marks_of` may be read by others meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
from tantivy import Query, Searcher

from treestore.engine.log import LogPosition
from treestore.errors import NotFound
from treestore.search.compiling import KnownWords
from treestore.search.folder import IndexFailed, IndexFolder, faults, verify
from treestore.search.languages import analysis_version
from treestore.stores.access import Read
from treestore.stores.documents.policies import place_to_read
from treestore.stores.documents.text_rows import (
    NODES_PER_STEP,
    checksum,
    document_texts,
    facts_of,
    make_mark,
    make_row,
    make_schema,
    node_texts,
    tokenizers,
)
from treestore.stores.documents.touched import (
    Changes,
    PlaceChanges,
    all_places,
    names_of,
    policy_of,
)
from treestore.stores.keys import Keyspace, unpack_one

FORMAT_VERSION: Final = 2

COMMIT_NODES: Final = 20_000
"""Nodes between two commits of an index that is being rebuilt, so that it can be searched."""

_NONE: Final[frozenset[bytes]] = frozenset()


class Marker(msgspec.Struct, array_like=True):
    """What a commit says of itself."""

    format: int
    analysis: str
    database_uuid: bytes
    timeline: int
    position: tuple[int, ...]
    """Of the state that it shows."""
    languages: tuple[str, ...]
    building: bool
    """It is not whole yet."""


@attrs.frozen
class Identity:
    """Whose index it is."""

    database_uuid: bytes
    timeline: int


@attrs.frozen(eq=False)
class View:
    """One commit, as searches see it.

    Attributes:
        searcher: None where there is no index: nothing is stored.
        lsn: of the state that it shows; None while it is being rebuilt.
        day: for which it is known what is stale.
        languages: that rows may have.
        stale: policies whose rows do not say rightly which version is in effect.
        means: words in a field of a row, on average, as far as somebody asked.
        words: what was found out about words, see `Compiler`.
    """

    searcher: Searcher | None
    lsn: int | None
    day: date
    languages: frozenset[str]
    stale: frozenset[bytes]
    means: dict[str, float] = attrs.field(factory=dict)
    words: KnownWords = attrs.field(factory=dict)

    @property
    def is_mixed(self) -> bool:
        """Whether it has rows of versions that are not in effect."""
        return self.searcher is not None and self.searcher.doc_freq("live", 0) > 0


@attrs.define
class Progress:
    """How far a rebuild is."""

    running: bool = False
    documents: int = 0
    documents_total: int = 0
    nodes: int = 0
    nodes_total: int = 0


def in_effect(txn: Read, policy: bytes) -> bytes | None:
    """The packed place that a read of a policy means; None where that is not there."""
    policy_id, _ = unpack_one(policy, 0)
    assert isinstance(policy_id, str)
    try:
        return place_to_read(txn, policy_id, None).packed
    except NotFound:
        return None


def day_of(txn: Read) -> date:
    """The day of a transaction, UTC."""
    return txn.now.astimezone(UTC).date()


class TextIndex:
    """The index of one database. `open` first."""

    def __init__(self, path: Path, identity: Identity, pause: Callable[[], None]) -> None:
        self.schema = make_schema()
        self.folder = IndexFolder(path, self.schema, tokenizers())
        self.progress = Progress()
        self.nodes_indexed = 0
        """Rows added since it was opened."""
        self.commits = 0
        self._identity = identity
        self._pause = pause
        self._lock = threading.Lock()
        self._marks: dict[bytes, frozenset[bytes]] = {}
        self._new_marks: dict[bytes, frozenset[bytes]] = {}
        """Since the last commit."""
        self._stale: set[bytes] = set()
        self._day = date.min
        """For which `_stale` was found, of all policies."""
        self._languages: set[str] = set()
        self._position: LogPosition | None = None
        self._written = False
        """Whether anything is to be committed."""
        self._steps = self._breaths = 0
        self.view = View(None, None, date.min, frozenset(), frozenset())

    # -- opening ------------------------------------------------------------------------------

    def open(self, txn: Read, durable_lsn: int) -> LogPosition | None:
        """Open what is in the folder; the position in the log that it goes on from.

        None: there is nothing, or nothing to go on from; `rebuild` it.
        """
        raw = self.folder.open()
        if raw is None:
            return None
        try:
            marker = msgspec.msgpack.decode(raw, type=Marker)
        except msgspec.DecodeError as error:
            raise IndexFailed(f"its marker is malformed: {error}") from error
        position = LogPosition.from_tuple(marker.position)
        why = ""
        if (marker.format, marker.analysis) != (FORMAT_VERSION, analysis_version()):
            why = "it was made by another version"
        elif (marker.database_uuid, marker.timeline) != attrs.astuple(self._identity):
            why = "it is of another database or timeline"
        elif marker.building:
            why = "it was not whole yet"
        elif position.lsn > durable_lsn:
            why = "it is ahead of the database"
        if why:
            raise IndexFailed(why)
        self._languages = set(marker.languages)
        self._position = position
        with faults("reading the index"):
            self._read_marks(txn)
        self._show(position.lsn)
        return position

    def _read_marks(self, txn: Read) -> None:
        searcher = self.folder.searcher()
        query = Query.exists_query("mark")
        limit = max(1, searcher.num_docs)
        hits = searcher.search(query, limit, count=False).hits
        marked = set(searcher.fast_field_values("mark", [address for _, address in hits]))
        marks: dict[bytes, set[bytes]] = {}
        for place in all_places(txn):
            if checksum(place) in marked:
                marks.setdefault(policy_of(place), set()).add(place)
        self._marks = {policy: frozenset(places) for policy, places in marks.items()}
        self._find_stale(txn)

    def _find_stale(self, txn: Read) -> None:
        """Look at all policies: a day began, or the index was opened."""
        self._day = day_of(txn)
        self._stale = set()
        first = Keyspace.POLICIES
        for keys, _ in txn.batches(first, bytes((first[0] + 1,))):
            for key in keys:
                self._judge(txn, key[1:])
                self._breathe()

    def _judge(self, txn: Read, policy: bytes) -> None:
        """Whether the rows of a policy say rightly which version is in effect."""
        place = in_effect(txn, policy)
        right = _NONE if place is None else frozenset((place,))
        if self._marked(policy) == right:
            self._stale.discard(policy)
        else:
            self._stale.add(policy)

    def _marked(self, policy: bytes) -> frozenset[bytes]:
        found = self._new_marks.get(policy)
        return self._marks.get(policy, _NONE) if found is None else found

    # -- following ----------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether it shows a state, from which on it can be updated."""
        return self.view.lsn is not None

    def rebuild(self, txn: Read, position: LogPosition) -> Iterator[None]:
        """Make it anew from a state, a few nodes a step. Searches see what there is already.

        Raises:
            IndexFailed: a fault of the library or of the disk.
        """
        places = list(all_places(txn))
        facts = {place: facts_of(txn, place) for place in places}
        self.progress = Progress(
            running=True,
            documents_total=len(places),
            nodes_total=sum(its[1] for its in facts.values() if its is not None),
        )
        self.folder.remove()
        with self._lock:
            self._marks, self._new_marks = {}, {}
        self._stale, self._languages, self._position = set(), set(), None
        self._show(None)
        committed = 0
        for place in places:
            self._find_folder()
            for _ in self._write(txn, place, live=in_effect(txn, policy_of(place)) == place):
                yield
                if self.progress.nodes - committed >= COMMIT_NODES:
                    committed = self.progress.nodes
                    self._commit(position, building=True)
            self.progress.documents += 1
        self._find_stale(txn)
        yield from self._finish(position)
        self.progress.running = False

    def update(self, txn: Read, position: LogPosition, changes: Changes) -> Iterator[None]:
        """Bring it from the state that it shows to another one, a few nodes a step.

        Args:
            txn: the state.
            position: of it.
            changes: at least all that changed in between.

        Raises:
            IndexFailed: a fault of the library or of the disk; open it anew, or rebuild.
        """
        for place, its in changes.places.items():
            yield from self._update_place(txn, place, its)
        for policy in changes.of_policies:
            self._judge(txn, policy)
        yield from self._finish(position)

    def _find_folder(self) -> None:
        if not self.folder.is_open:
            self.folder.create()

    def _update_place(self, txn: Read, place: bytes, its: PlaceChanges) -> Iterator[None]:
        facts = facts_of(txn, place)
        known = self.folder.is_open
        if facts is None:
            if known:
                self._delete("place", place)
                self._mark(place, live=False)
            return
        self._find_folder()
        if its.whole or not self._has_rows(place):
            self._delete("place", place)
            yield from self._write(txn, place, live=in_effect(txn, policy_of(place)) == place)
            return
        language, _ = facts
        live = place in self._marked(policy_of(place))
        self._languages.add(language)
        for packed in its.ids_in(txn, place):
            self._delete("node", place + packed)
            node = node_texts(txn, place, packed, language)
            if node is not None:
                self._add(make_row(node, live=live))
                self.nodes_indexed += 1
            self._steps += 1
            if self._steps % NODES_PER_STEP == 0:
                yield
            self._breathe()

    def _has_rows(self, place: bytes) -> bool:
        searcher = self.view.searcher
        return searcher is not None and searcher.doc_freq("place", checksum(place)) > 0

    def _write(self, txn: Read, place: bytes, *, live: bool) -> Iterator[None]:
        """Add all rows of a document; those that were there are deleted before."""
        facts = facts_of(txn, place)
        if facts is None:
            return
        language, _ = facts
        self._languages.add(language)
        for node in document_texts(txn, place, language):
            self._add(make_row(node, live=live))
            self.nodes_indexed += 1
            self.progress.nodes += self.progress.running
            self._steps += 1
            if self._steps % NODES_PER_STEP == 0:
                yield
            self._breathe()
        self._mark(place, live=live)

    def _breathe(self) -> None:
        """Now and then the interpreter is somebody else's."""
        self._breaths += 1
        if self._breaths % 16 == 0:
            self._pause()

    def _mark(self, place: bytes, *, live: bool) -> None:
        policy = policy_of(place)
        marked = self._marked(policy) - {place}
        self._delete("mark", place)
        if live:
            self._add(make_mark(place))
            marked |= {place}
        self._new_marks[policy] = marked

    def _add(self, row: Any) -> None:
        with faults("adding to the index"):
            self.folder.add(row)
        self._written = True

    def _delete(self, field: str, name: bytes) -> None:
        with faults("deleting from the index"):
            self.folder.delete(field, checksum(name))
        self._written = True

    def _finish(self, position: LogPosition) -> Iterator[None]:
        yield
        if self._written:
            self._commit(position, building=False)
        else:
            self._position = self._position or position
            self._show(position.lsn)

    def _commit(self, position: LogPosition, *, building: bool) -> None:
        marker = Marker(
            FORMAT_VERSION,
            analysis_version(),
            self._identity.database_uuid,
            self._identity.timeline,
            position.to_tuple(),
            tuple(sorted(self._languages)),
            building,
        )
        with faults("committing the index"):
            self.folder.commit(msgspec.msgpack.encode(marker))
        self.commits += 1
        self._written = False
        self._position = position
        self._show(None if building else position.lsn)

    def save(self, position: LogPosition) -> None:
        """Write down that it goes as far as a state from which nothing differs."""
        if self.folder.is_open and self._position is not None:
            self._commit(position, building=False)

    @property
    def saved_position(self) -> LogPosition | None:
        """As far as the folder says that it goes."""
        return self._position if self.folder.is_open else None

    def _show(self, lsn: int | None) -> None:
        searcher = self.folder.searcher() if self.folder.is_open else None
        view = View(searcher, lsn, self._day, frozenset(self._languages), frozenset(self._stale))
        with self._lock:
            for policy, places in self._new_marks.items():
                if places:
                    self._marks[policy] = places
                else:
                    self._marks.pop(policy, None)
            self._new_marks = {}
            self.view = view

    def freshen(self, txn: Read, position: LogPosition) -> Iterator[None]:
        """Write the rows of stale policies again; only while it shows just that state."""
        for policy in sorted(self._stale):
            right = in_effect(txn, policy)
            wrong = self._marked(policy)
            for place in wrong ^ (_NONE if right is None else {right}):
                self._delete("place", place)
                yield from self._write(txn, place, live=place == right)
            self._judge(txn, policy)
        yield from self._finish(position)

    def begin_day(self, txn: Read, changes: Changes) -> None:
        """Another day: find the policies for which another version is in effect now.

        Args:
            txn: a state that is not earlier than the one that this shows.
            changes: what differs between the two. A snapshot of the earlier one may have other
                versions of these policies, so that searches look themselves.
        """
        self._find_stale(txn)
        self._stale |= changes.of_policies
        self._show(self.view.lsn)

    # -- looking ------------------------------------------------------------------------------

    def basis(
        self, policies: Callable[[View], frozenset[bytes]]
    ) -> tuple[View, Mapping[bytes, frozenset[bytes]]]:
        """The view, and of some policies (that may depend on it) what its rows call live."""
        with self._lock:
            view = self.view
            wanted = policies(view)
            return view, {policy: self._marks.get(policy, _NONE) for policy in wanted}

    def rows(self) -> int:
        """Rows of nodes in the index."""
        view = self.view
        if view.searcher is None:
            return 0
        with self._lock:
            marks = sum(map(len, self._marks.values()))
        return max(0, view.searcher.num_docs - 1 - marks)

    def check(self, txn: Read, lsn: int) -> list[str]:
        """What is wrong with its files, and with its rows where it shows just this state."""
        searcher = self.view.searcher
        try:
            if self.folder.is_open:
                verify(self.folder.path)
            if searcher is None or self.view.lsn != lsn:
                return []
            with faults("reading the index"):
                return list(self._miscounts(txn, searcher))
        except IndexFailed as error:
            return [f"The search index is damaged: {error}"]

    def _miscounts(self, txn: Read, searcher: Searcher) -> Iterator[str]:
        total = 0
        for place in all_places(txn):
            facts = facts_of(txn, place)
            assert facts is not None
            query = Query.term_query(self.schema, "place", checksum(place))
            rows = searcher.search(query, 1, count=True).count  # type: ignore[attr-defined]
            total += facts[1]
            if rows != facts[1]:
                yield (
                    f"The search index has {rows} rows for the {facts[1]} nodes of "
                    f"version {names_of(place)[1]!r} of policy {names_of(place)[0]!r}."
                )
            self._breathe()
        if self.rows() != total:
            yield f"The search index has {self.rows()} rows for {total} nodes in all."

    def close(self) -> None:
        """Let go of the folder."""
        self.folder.close()
