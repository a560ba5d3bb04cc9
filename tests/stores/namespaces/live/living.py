"""A namespace with a view, over an engine: everything that its keeper does, called by hand."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.stores.engine_store import EngineStore
from treestore.engine.changes import notes_of
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.engine.snapshot import Snapshot
from treestore.model.namespaces import NamespaceHit
from treestore.search.fulltext.generations import NamespaceTexts
from treestore.search.fulltext.index import Identity
from treestore.search.fulltext.writers import Writers
from treestore.stores.access import Read
from treestore.stores.namespaces import catalog, exact, segments
from treestore.stores.namespaces.layout import attributes_of, decode_attributes, row_of
from treestore.stores.namespaces.live import from_tree
from treestore.stores.namespaces.live.files import SegmentFolder
from treestore.stores.namespaces.live.loading import DamagedSegment
from treestore.stores.namespaces.live.making import Made, Maker
from treestore.stores.namespaces.live.view import View, text_names
from treestore.stores.namespaces.live.views import Views
from treestore.stores.namespaces.manifests import manifests
from treestore.stores.namespaces.search import Request, make_request

NAME = "things"


class LivingStore(EngineStore):
    """An engine, with views of its namespaces, whose segments are in a folder of their own."""

    def __init__(self, *, indexed_rows_min: int = 8) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="treestore-views-"))
        self.names = 0
        self.indexed_rows_min = indexed_rows_min
        self.texts: NamespaceTexts | None = None
        self.start()

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def position(self) -> LogPosition:
        """Of the durable state."""
        return self._engine.durable.position

    def start(self) -> None:
        """The views of a process that has just begun."""
        engine = self._engine
        self.damaged: dict[int, list[DamagedSegment]] = {}
        self.segments = SegmentFolder(
            self.folder / "segments",
            UUID(bytes=engine.identity.database_uuid),
            self.indexed_rows_min,
        )
        self.views = Views(
            lambda after, until: notes_of(engine.log.groups_after(after, until)),
            self.segments.open,
            damaged=self.damaged.__setitem__,
        )
        self.maker = Maker(self.views, self.segments, self.new_name)

    def new_name(self) -> str:
        self.names += 1
        return f"{self.names:032x}"

    def crash(self) -> None:
        clock: Any = self._engine.environment.clock_ns
        super().crash()
        # It goes on. Where it fell back over a restart, a new row could have the number of a dead
        # one that the full-text index still has, and nothing would tell the two apart.
        restarted: Any = self._engine.environment.clock_ns
        restarted.now_ns = clock.now_ns
        if self.texts is not None:
            self.texts.close()
            self.texts = None
        self.start()

    def close(self) -> None:
        try:
            if self.texts is not None:
                self.texts.close()
            super().close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- the view -------------------------------------------------------------------------------

    @property
    def there(self) -> catalog.Opened:
        return catalog.require(self.txn, NAME)

    def view(self) -> View:
        """Loaded, and brought up."""
        return self.views.view(self.txn, self.position, self.there)

    def known_view(self) -> View | None:
        return self.views.follower.view(self.there.number)

    def lose_view(self) -> None:
        """It is loaded again when it is needed."""
        view = self.known_view()
        if view is not None:
            self.views.follower.lose(view, "a test says so")

    def forget_before(self, leases: Iterable[Snapshot]) -> None:
        """What the keeper does when snapshots were closed."""
        oldest = min([self.position.lsn, *(lease.state.position.lsn for lease in leases)])
        view = self.known_view()
        if view is not None:
            view.forget_before(min(oldest, view.position.lsn))

    def query(self, request: Request, lease: Snapshot | None = None) -> list[NamespaceHit]:
        """By the view, where that can be, of a snapshot or the newest state."""
        if lease is None:
            return self.views.query(self.txn, request, self.position)
        return self.views.query(lease.read(), request, lease.state.position)

    def reference(self, request: Request, txn: Read | None = None) -> list[NamespaceHit]:
        """By looking at every document."""
        txn = self.txn if txn is None else txn
        if request.text is None:
            return exact.search(txn, request)
        basis = self.views.texts(self.there.number).basis()
        return from_tree.search(txn, request, None if basis is None else basis.index)

    # -- segments -------------------------------------------------------------------------------

    def seal(self, rows_max: int | None = None) -> Made | None:
        """Make the file; `enter` does the rest."""
        return self.maker.seal(self.txn, self.position, self.there, rows_max=rows_max)

    def merge(self, old: Sequence[int]) -> Made:
        """Likewise of segments."""
        return self.maker.merge(self.txn, self.position, self.there, old)

    def enter(self, made: Made) -> int | None:
        """The command."""
        segment: int | None = self.run(lambda txn: made.enter(txn))
        if segment is None:
            self.maker.give_up(made)
        return segment

    def manifests(self) -> list[tuple[int, Any]]:
        return manifests(self.txn, self.there.number)

    def repair(self) -> int:
        """What the keeper does about damaged segments; how many there were."""
        damaged = self.damaged.pop(self.there.number, [])
        for one in damaged:
            number = self.there.number
            live = segments.live_rows(self.txn, number, one.number)
            rows = segments.rows_with_ids(self.txn, number, live)
            self.run(segments.forget_segment, number, one.number, rows)
        return len(damaged)

    # -- full text ------------------------------------------------------------------------------

    def open_texts(self) -> None:
        """Open the full-text index, whatever is there, and have it followed."""
        there = self.there
        identity = self.engine.identity
        self.texts = NamespaceTexts(
            self.folder / "texts",
            Identity(identity.database_uuid, identity.timeline, there.number),
            Writers(),
        )
        self.texts.open({name: schema_of(there, name) for name in text_names(there.schema)})
        index = self.texts.serving.view
        assert index is not None
        self.views.begin_texts(self.view(), index)

    def index_some(self, limit: int | None, leases: Iterable[Snapshot]) -> None:
        """Add what is new to the index, some of it, and remove what nobody sees any more."""
        assert self.texts is not None
        view = self.view()
        texts = self.views.texts(self.there.number)
        prefix = self.there.space.documents
        oldest = min([view.position.lsn, *(lease.state.position.lsn for lease in leases)])
        self.texts.remove(gone := texts.take_gone(oldest))
        settled = []
        for one in texts.new()[:limit]:
            found = one.texts
            if found is None:
                record = self.txn.get(prefix + one.packed_id)
                if record is None or row_of(record) != one.row:
                    if oldest == view.position.lsn:
                        settled.append(one)  # Nobody sees it any more.
                    continue
                found = decode_attributes(attributes_of(record))
            self.texts.add(one.row, found)
            settled.append(one)
        if settled or gone:
            texts.show(self.texts.commit(), settled)


def schema_of(there: catalog.Opened, name: str) -> Any:
    return there.schema.attributes[name].full_text


def request(**parameters: Any) -> Request:
    """A request of the namespace."""
    return make_request(NAME, **parameters)
