"""The folder of one namespace: the index that serves, and at times the one that takes its place.

::

    PATH/1, PATH/2 …   one index each

An index is never changed into another one. When its analyzers change, a new one is made beside it;
the old one serves meanwhile, with its own analyzers and the attributes that it knows, and gets what
is written, too. Which is which needs no note: while an old one is there, the new one is not whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from treestore.model.namespaces import FullTextSchema
from treestore.search.folder import IndexFailed, numbered_folders, remove_folder
from treestore.search.fulltext.fields import TextFields, Texts
from treestore.search.fulltext.index import FullTextIndex, Identity, View
from treestore.search.fulltext.writers import Writers


@attrs.define(eq=False)
class NamespaceTexts:
    """The texts of one namespace. `open` first; one owner thread at a time (see `FullTextIndex`).

    Attributes:
        serving: what is searched.
        making: what takes its place once it is whole (`finish`).
        why: why the last one could not be used, for the log; "" where it could.
    """

    path: Path
    identity: Identity
    writers: Writers
    serving: FullTextIndex = attrs.field(init=False)
    making: FullTextIndex | None = None
    why: str = ""

    def open(self, attributes: Mapping[str, FullTextSchema]) -> None:
        """Open what is there, and begin what is not: whatever the state of the folder.

        Afterwards compare `serving` (and `making`, where there is one: then call `finish`) with the
        rows that live, and add and remove the difference.

        Raises:
            IndexFailed: the disk or the library failed.
        """
        fields = TextFields(attributes)
        found: list[FullTextIndex] = []
        for number in numbered_folders(self.path):
            path = self.path / str(number)
            try:
                found.append(FullTextIndex.opened(path, self.identity, self.writers))
            except IndexFailed as error:
                self.why = str(error)
                remove_folder(path)
        right = [its for its in found if its.fields.fingerprint == fields.fingerprint]
        others = [its for its in found if its.fields.fingerprint != fields.fingerprint]
        for its in (*right[:-1], *others[:-1]):
            its.delete()
        if right:
            self.serving, self.making = (others or right)[-1], right[-1] if others else None
        elif others:
            self.serving = others[-1]
            self.why = self.why or "it is for another schema"
            self.making = self._begun(fields)
        else:
            self.serving = self._begun(fields)

    def _begun(self, fields: TextFields) -> FullTextIndex:
        path = self.path / str(max(numbered_folders(self.path), default=0) + 1)
        return FullTextIndex.created(path, fields.attributes, self.identity, self.writers)

    # -- writing ------------------------------------------------------------------------------

    def change(self, attributes: Mapping[str, FullTextSchema]) -> bool:
        """Begin an index for other attributes or analyzers; False where these make no difference.

        Afterwards add all rows that live to `making`, then call `finish`. What is written
        meanwhile goes to both.
        """
        fields = TextFields(attributes)
        newest = self.making or self.serving
        if newest.fields.fingerprint == fields.fingerprint:
            return False
        if self.making is not None:
            self.making.delete()
            self.making = None
        if self.serving.fields.fingerprint != fields.fingerprint:
            self.making = self._begun(fields)
        return True

    def start_over(self) -> None:
        """Begin with an empty index: the one that serves is damaged. Add all rows that live."""
        fields = (self.making or self.serving).fields
        self.serving.delete()
        if self.making is not None:
            self.serving, self.making = self.making, None
        else:
            self.serving = self._begun(fields)

    def finish(self) -> View:
        """The one that was made has all rows: it serves from now on; the old one is removed."""
        if self.making is not None:
            view = self.making.commit()
            old, self.serving, self.making = self.serving, self.making, None
            old.delete()
            return view
        return self.serving.commit()

    def add(self, row: int, texts: Texts) -> None:
        """Add a new row to both. See `FullTextIndex.add`."""
        for index in self._both():
            index.add(row, texts)

    def remove(self, rows: Iterable[int]) -> None:
        """Remove rows from both. See `FullTextIndex.remove`."""
        gone = list(rows)
        for index in self._both():
            index.remove(gone)

    def commit(self) -> View:
        """Commit both; the view of the one that serves."""
        for index in self._both():
            index.commit()
        assert self.serving.view is not None
        return self.serving.view

    def _both(self) -> list[FullTextIndex]:
        return [self.serving] if self.making is None else [self.serving, self.making]

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything; what is not committed is forgotten. Views stay usable."""
        for index in self._both():
            index.close()

    def delete(self) -> None:
        """Close it, and remove its folder. Views stay usable."""
        self.close()
        remove_folder(self.path)

    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(index.size_bytes() for index in self._both())
