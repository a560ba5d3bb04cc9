"""Parts of a view: rows with their contents, and from when to when each is there.

What a part has of its rows (`Content`) never changes. That they come and go is written down in
LSNs, so that a part answers for many states: a row is visible at S if ``born <= S < died``. Only
the follower writes (`docs/namespaces.md`, "The view"), and readers take no lock:

* a reader asks for a state up to which the follower has gone, and the follower writes LSNs behind
  every such state; so a reader that sees a change half made sees a row that is there, or not there,
  at its own state either way;
* before the follower changes anything, `Part.changed_lsn` says so; what a reader has calculated for
  a state may be used for another one if no change lies between (`Part.visible`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np

from treestore.search.columns.growing import GrowingColumns
from treestore.search.columns.rows import Columns
from treestore.search.vectors.segment import Segment
from treestore.search.vectors.tail import Tail, TailView
from treestore.stores.namespaces.live.arrays import Flags, Growing, Ids, Rows

LIVES: Final = np.iinfo(np.int64).max
"""The `died` of a row that has not."""

NEVER: Final = -1
"""The `died` of a row that is in no state that the part is asked for."""


@attrs.frozen(eq=False, kw_only=True)
class Content:
    """What rows are, by ordinal.

    Attributes:
        rows: their numbers.
        ids: packed.
        columns: of their attributes, and of the id as `ID`.
        vectors: of those that have one; None where none has. Flags and positions of a segment's
            are those of its rows.
        places: of a tail, the ordinal of each vector's row, ascending; None where all rows have
            vectors.
    """

    rows: Rows
    ids: Ids
    columns: Columns
    vectors: Segment | TailView | None = None
    places: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def of_vectors(self, allowed: Flags | None) -> Flags | None:
        """Flags of rows as those that a search of `vectors` takes."""
        if allowed is None or self.places is None:
            return allowed
        found: Flags = allowed[self.places]
        return found

    def of_row(self, position: int) -> int:
        """The ordinal of a row that a search of `vectors` found."""
        return position if self.places is None else int(self.places[position])


class Finder:
    """Finds rows that do not change by their numbers."""

    __slots__ = ("_order", "_rows", "first", "last")

    def __init__(self, rows: Rows) -> None:
        self._order: Rows | None = None
        if len(rows) > 1 and not bool((rows[1:] > rows[:-1]).all()):
            # Of transactions that ran at a time the later one may have the smaller numbers. Of two
            # with the same number the later one is found.
            self._order = np.argsort(rows, kind="stable")
            rows = rows[self._order]
        self._rows = rows
        self.first, self.last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)

    def find(self, row: int) -> int | None:
        """The ordinal of a row, or None."""
        if not self.first <= row <= self.last:
            return None
        at = int(self._rows.searchsorted(row, "right")) - 1
        if self._rows[at] != row:
            return None
        return at if self._order is None else int(self._order[at])

    def find_all(self, rows: Rows) -> Rows:
        """The ordinals of rows; -1 for those that are not here."""
        if not len(self._rows):
            return np.full(len(rows), -1, np.int64)
        at = self._rows.searchsorted(rows, "right") - 1
        found = np.where(self._rows[at] == rows, at, -1)  # `at` may be -1: the last one, larger.
        if self._order is not None:
            found = np.where(found < 0, -1, self._order[found])
        return found.astype(np.int64, copy=False)


@attrs.frozen(eq=False)
class Visible:
    """Which rows of a part are visible at a state.

    Attributes:
        lsn: of the state.
        content: of the part, as far as it was looked at: all rows that had come by then.
        count: of these, those that are visible.
        flags: for each; None where all are. Not to be changed.
    """

    lsn: int
    content: Content
    count: int
    flags: Flags | None


class Part:
    """Rows that came, and go. None are added.

    Attributes:
        content: of the rows.
        segment: the number of the segment that they are; None where they are none.
        uuid: of the segment's file.
        changed_lsn: a row came or went at this LSN, and none after it.
    """

    def __init__(
        self,
        content: Content,
        finder: Finder | None,
        *,
        born: Rows | None = None,
        died: Rows | None = None,
        segment: int | None = None,
        uuid: str = "",
        changed_lsn: int = 0,
    ) -> None:
        """``born`` is None where all rows are older than any state that the part is asked for."""
        self._content = content
        self._finder = finder
        self._born = born
        self._died = died
        self.segment = segment
        self.uuid = uuid
        self.changed_lsn = changed_lsn
        self._visible: Visible | None = None

    @property
    def content(self) -> Content:
        """Of the rows."""
        return self._content

    # -- the follower's -------------------------------------------------------------------------

    def find(self, row: int) -> int | None:
        """The ordinal of a row."""
        assert self._finder is not None
        return self._finder.find(row)

    def end(self, ordinal: int, lsn: int) -> bool:
        """A row died; whether it lived until then."""
        if self.died_at(ordinal) != LIVES:
            return False
        self.changed_lsn = lsn
        self._all_died()[ordinal] = lsn
        return True

    def died_at(self, ordinal: int) -> int:
        """When a row died, or `LIVES`."""
        return LIVES if self._died is None else int(self._died[ordinal])

    def _all_died(self) -> Rows:
        if self._died is None:
            self._died = np.full(len(self.content), LIVES, np.int64)
        return self._died

    def died(self) -> Rows:
        """When each row died; not to be changed."""
        return np.full(len(self.content), LIVES, np.int64) if self._died is None else self._died

    def dead(self) -> int:
        """How many rows have died."""
        return 0 if self._died is None else int((self._died != LIVES).sum())

    def without(self, ordinals: Rows) -> Part | None:
        """The part without some rows, which another part has now; None where none lives then."""
        died = self.died().copy()
        died[ordinals] = NEVER
        if not (died == LIVES).any():
            return None
        return Part(
            self.content,
            self._finder,
            born=self._born,
            died=died,
            segment=self.segment,
            uuid=self.uuid,
            changed_lsn=self.changed_lsn,
        )

    # -- readers' -------------------------------------------------------------------------------

    def find_all(self, rows: Rows) -> Rows:
        """The ordinals of rows; -1 for those that are not here."""
        assert self._finder is not None
        return self._finder.find_all(rows)

    def visible(self, lsn: int) -> Visible:
        """The rows that are visible at a state up to which the follower has gone."""
        # In this order: what is known was right for its state, and `changed_lsn`, which is looked
        # at after that, is no older than any change up to there.
        known = self._visible
        changed = self.changed_lsn
        content = self.content
        if (
            known is not None
            and len(known.content) == len(content)
            and (known.lsn == lsn or (known.lsn >= changed and lsn >= changed))
        ):
            return known
        found = self._looked_up(lsn, content)
        if known is None or lsn >= known.lsn:
            self._visible = found
        return found

    def _looked_up(self, lsn: int, content: Content) -> Visible:
        total = len(content)
        flags: Flags | None = None
        if self._died is not None:
            flags = self._died[:total] > lsn
        if self._born is not None:
            born = self._born[:total] <= lsn
            flags = born if flags is None else np.logical_and(flags, born, out=flags)
        count = total if flags is None else int(np.count_nonzero(flags))
        if flags is not None and count < total:
            flags.flags.writeable = False
        else:
            flags = None
        return Visible(lsn, content, count, flags)


@attrs.frozen(eq=False)
class NewRow:
    """A row that comes.

    Attributes:
        packed_id: of the document.
        document: its attributes as columns keep them, and its id.
        vector: float32, little-endian; empty where it has none.
    """

    row: int
    packed_id: bytes
    document: Mapping[str, Any]
    vector: bytes


class GrowingPart(Part):
    """Rows that come one by one.

    Args:
        types: of the columns.
        dim: of the vectors; None where the schema has none yet.
    """

    def __init__(self, types: Mapping[str, str], dim: int | None) -> None:
        self._types = dict(types)
        self._dim = dim
        self._columns = GrowingColumns(types)
        self._tail = None if dim is None else Tail(dim)
        self._rows = Growing()
        self._born_lsns = Growing()
        self._died_lsns = Growing()
        self._places = Growing()
        self._ids: list[bytes] = []
        self._ordinals: dict[int, int] = {}
        super().__init__(self._shown(), None)

    def _shown(self) -> Content:
        count = len(self._ids)
        vectors = None if self._tail is None else self._tail.view()
        has_all = vectors is not None and len(vectors) == count
        return Content(
            rows=self._rows.prefix(count),
            ids=self._ids,
            columns=self._columns.prefix(count),
            vectors=vectors if vectors is not None and len(vectors) else None,
            places=None if has_all else self._places.prefix(len(self._places)),
        )

    def add_types(self, types: Mapping[str, str], dim: int | None) -> None:
        """Keep columns of other attributes too, and vectors; rows that are there have none."""
        for name, type in types.items():
            if name not in self._types:
                self._types[name] = type
                self._columns.add_attribute(name, type)
        if self._tail is None and dim is not None:
            self._dim, self._tail = dim, Tail(dim)

    def fresh(self) -> GrowingPart:
        """An empty one of the same kind."""
        return GrowingPart(self._types, self._dim)

    def append(self, new: Sequence[NewRow], lsn: int) -> None:
        """Rows come."""
        if not new:
            return
        self.changed_lsn = lsn
        first = len(self._ids)
        rows = np.fromiter((one.row for one in new), np.int64, len(new))
        self._add_vectors(new, rows, first)
        for one in new:
            self._columns.append(one.document)
        self._rows.extend(rows)
        self._born_lsns.extend(np.full(len(new), lsn, np.int64))
        self._died_lsns.extend(np.full(len(new), LIVES, np.int64))
        self._ids += [one.packed_id for one in new]
        for ordinal, one in enumerate(new, first):
            self._ordinals[one.row] = ordinal
        count = len(self._ids)
        self._born, self._died = self._born_lsns.prefix(count), self._died_lsns.prefix(count)
        self._content = self._shown()

    def _add_vectors(self, new: Sequence[NewRow], rows: Rows, first: int) -> None:
        having = [at for at, one in enumerate(new) if one.vector]
        if not having:
            return
        if self._tail is None:
            raise ValueError("a row has a vector, and the schema has none")
        joined = b"".join([new[at].vector for at in having])
        vectors = np.frombuffer(joined, "<f4").astype(np.float32, copy=False)
        self._tail.append(rows[having], vectors.reshape(len(having), self._tail.dim))
        self._places.extend(np.array(having, np.int64) + first)

    def find(self, row: int) -> int | None:
        return self._ordinals.get(row)

    def find_all(self, rows: Rows) -> Rows:
        get = self._ordinals.get
        return np.fromiter((get(row, -1) for row in rows.tolist()), np.int64, len(rows))

    def frozen(self) -> Part:
        """The rows that are there, as a part of its own, which takes the place of this one."""
        content = self._content
        return Part(
            content,
            Finder(content.rows),
            born=self._born,
            died=self._died,
            changed_lsn=self.changed_lsn,
        )

    @property
    def memory_bytes(self) -> int:
        """About what it takes, beside its columns."""
        tail = 0 if self._tail is None else self._tail.memory_bytes
        return tail + 200 * len(self._ids)
