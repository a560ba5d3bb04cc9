"""The window of remembered writes: what was committed since the oldest open transaction began.

An interactive transaction is validated at its commit against everything that was executed since
its snapshot: groups that are durable, the one that is on its way to the log, and the commands
before it in its own group. The engine hands each group in when it is sealed. While no interactive
transaction is open a group is kept until it is durable and then forgotten, so an ordinary command
pays nothing and a group less than a microsecond; nothing is looked at before somebody validates.

Threads: everything belongs to the thread that owns the engine, but for `since` and what it gives,
which a long commit calls on its own thread. So the list of groups is replaced rather than cut.
"""

from __future__ import annotations

from treestore.engine.log import Transaction
from treestore.engine.readset import WriteSet
from treestore.errors import TransactionConflict


class Window:
    """The writes of recent groups, the oldest first.

    Args:
        count_max: transactions that are remembered at most, and
        size_bytes_max: memory that they take at most; beyond either the oldest are forgotten, and
            whoever would have to be validated against them cannot be committed.
    """

    def __init__(self, count_max: int, size_bytes_max: int) -> None:
        self.count_max = count_max
        self.size_bytes_max = size_bytes_max
        self.count = 0
        """Transactions in sealed groups."""
        self.size_bytes = 0
        self._sealed: list[WriteSet] = []
        self._open: WriteSet | None = None
        """Of the open group, once somebody was validated against it."""
        self._open_seen_bytes = 0
        self._durable = 0
        self._forgotten = 0
        """Commit number up to which groups were forgotten although somebody needed them."""
        self._begun: dict[int, int] = {}
        """Open transactions → commit number of their snapshot; these never fall."""
        self._last_id = 0

    # -- transactions ---------------------------------------------------------------------------

    @property
    def transactions(self) -> int:
        """Open interactive transactions."""
        return len(self._begun)

    def begin(self, number: int) -> int:
        """A transaction begins on the durable state ``number``; gives what `end` wants."""
        self._last_id += 1
        self._begun[self._last_id] = number
        return self._last_id

    def end(self, transaction: int) -> list[WriteSet]:
        """It needs nothing more of the window; harmless when done twice.

        Returns:
            What was remembered for it alone: freeing much of that takes a while.
        """
        if self._begun.pop(transaction, None) is None:
            return []
        return self._trim(bounded=False)

    def since(self, number: int, executed: list[Transaction]) -> list[WriteSet]:
        """What was executed after the state ``number``, the newest first, not indexed.

        Args:
            executed: the transactions of the open group.

        Raises:
            TransactionConflict: some of that is not remembered any more.
        """
        if number < self._forgotten:
            raise TransactionConflict(
                "So much was written while this transaction was open that it is not known any "
                "more whether that changed what it read; run it again, and keep it short."
            )
        found = []
        if executed:
            if self._open is None:
                self._open = WriteSet(executed, 0, 0)
            found.append(self._open)
        for writes in reversed(self._sealed):
            if writes.number <= number:
                break
            found.append(writes)
        return found

    def sealed_since(self, number: int) -> list[WriteSet]:
        """The sealed part of `since`; empty where that would raise."""
        return [] if number < self._forgotten else self.since(number, [])

    def unseen_bytes(self, number: int, open_bytes: int, *, ranges: bool) -> int:
        """About how much of `since` a validation would have to look at for the first time.

        Args:
            open_bytes: payloads of the open group.
            ranges: whether it is about ranges: then keys have to be put in order, too.
        """
        found = open_bytes
        if self._open is not None:
            found -= self._open_seen_bytes
        for writes in reversed(self._sealed):
            if writes.number <= number:
                break
            if not writes.is_ready(ranges=ranges):
                found += writes.size_bytes
        return found

    def saw_open(self, open_bytes: int) -> None:
        """The open group was indexed when it had payloads of so many bytes."""
        self._open_seen_bytes = open_bytes

    # -- groups ---------------------------------------------------------------------------------

    def sealed(self, transactions: list[Transaction], number: int, size_bytes: int) -> None:
        """The open group was closed; ``transactions`` is the very list that it had."""
        writes = self._open
        if writes is not None:
            self._open = None
            writes.seal(number, size_bytes)
        elif transactions:
            writes = WriteSet(transactions, number, size_bytes)
        else:
            return
        self.count += writes.count
        self.size_bytes += writes.size_bytes
        self._sealed.append(writes)

    def published(self, number: int) -> None:
        """Everything up to this commit number is durable."""
        self._durable = number
        sealed = self._sealed
        if not self._begun and len(sealed) == 1 and sealed[0].number <= number:
            # What happens with every group while no transaction is open.
            self._sealed = []
            self.count = self.size_bytes = 0
            return
        self._trim(bounded=True)

    def abandoned(self, number: int) -> None:
        """What is not durable was dropped, and ``number`` is the last that is."""
        self._open = None
        self._durable = number
        self._keep([writes for writes in self._sealed if writes.number <= number])

    def _trim(self, *, bounded: bool) -> list[WriteSet]:
        """Forget, and return, what nobody needs any more, and if ``bounded`` what is too much."""
        needed = next(iter(self._begun.values())) if self._begun else self._durable
        count, size = self.count, self.size_bytes
        count_kept, size_kept = self.count_max, self.size_bytes_max
        if not bounded:
            count_kept, size_kept = count, size
        elif count > count_kept or size > size_kept:
            # Some at a time: the list is copied each time.
            count_kept -= count_kept // 64
            size_kept -= size_kept // 64
        drop = 0
        sealed = self._sealed
        for writes in sealed:
            if writes.number > needed:
                fits = count <= count_kept and size <= size_kept
                if fits or writes.number > self._durable:
                    break
                self._forgotten = writes.number
            count -= writes.count
            size -= writes.size_bytes
            drop += 1
        if not drop:
            return []
        self._sealed = sealed[drop:]
        self.count, self.size_bytes = count, size
        return sealed[:drop]

    def _keep(self, sealed: list[WriteSet]) -> None:
        self._sealed = sealed
        self.count = sum(writes.count for writes in sealed)
        self.size_bytes = sum(writes.size_bytes for writes in sealed)
