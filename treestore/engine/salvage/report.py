"""What a repair did, and what it could not do."""

from __future__ import annotations

import attrs


@attrs.frozen
class Skipped:
    """Something that is not in the new store, or may not be.

    Attributes:
        kind: ``keys`` (of damaged pages), ``large value``, ``log``, ``torn tail``
            (most likely a group that was never acknowledged), ``slot``.
        file, offset: where the damage is, in bytes.
        page, pages: for damage in the page file.
        key_low, key_high: keys from the first one (inclusive) up to the second one (exclusive;
            None: to the end) are not there, as far as the log does not have them.
        lsn_first, lsn_last: log records; None where that cannot be known.
        keys_recovered: keys of the range that came from unreferenced pages all the same.
        why: for people.
    """

    kind: str
    file: str
    offset: int
    why: str
    page: int | None = None
    pages: int | None = None
    key_low: bytes | None = None
    key_high: bytes | None = None
    lsn_first: int | None = None
    lsn_last: int | None = None
    keys_recovered: int = 0


@attrs.frozen
class Replaced:
    """Damage that cost nothing: another copy of the same content was used.

    Attributes:
        file, offset: where it is.
        by: what was used instead.
        why: what is wrong there.
    """

    file: str
    offset: int
    by: str
    why: str


@attrs.define
class RepairReport:
    """What a repair did.

    Attributes:
        source, target: the directories.
        page_size_bytes: of both.
        slot: sequence number of the meta slot that was used; None where none was whole.
        database_uuid, new_database_uuid: of both, in hexadecimal.
        skipped: what is not in the new store.
        replaced: damage that cost nothing.
        leaves: leaves of the tree that were read.
        keys_from_tree: keys in them.
        keys_from_older_slot: keys that came from the older slot's tree, brought up to date by the
            log.
        keys_from_unreferenced: keys **recovered from unreferenced pages**; 0 unless asked for.
        unreferenced_leaves: leaves of lost ranges that nothing refers to.
        unreferenced_keys: keys in lost ranges that they hold.
        unreferenced_proven: whether the list of free space proves that they were in use when the
            checkpoint was made. Else they may hold what was deleted or changed since.
        keys_expected: how many keys the checkpoint had.
        keys_missing: how many of them are not there; None where it cannot be told.
        transactions_applied: from the log.
        log_lsn_last: the last record that was applied, or in the checkpoint.
        past_damage: log groups behind damage that were applied all the same, as asked: first and
            last LSN of each sequence.
        keys: keys in the new store.
        check_errors: what ``check`` says of the new store's pages.
        documents: what is wrong with stored documents, which damage tore apart.
    """

    source: str
    target: str
    page_size_bytes: int = 0
    slot: int | None = None
    database_uuid: str | None = None
    new_database_uuid: str | None = None
    skipped: list[Skipped] = attrs.field(factory=list)
    replaced: list[Replaced] = attrs.field(factory=list)
    leaves: int = 0
    keys_from_tree: int = 0
    keys_from_older_slot: int = 0
    keys_from_unreferenced: int = 0
    unreferenced_leaves: int = 0
    unreferenced_keys: int = 0
    unreferenced_proven: bool = False
    keys_expected: int | None = None
    keys_missing: int | None = None
    transactions_applied: int = 0
    log_lsn_last: int = 0
    past_damage: list[tuple[int, int]] = attrs.field(factory=list)
    keys: int = 0
    check_errors: list[str] = attrs.field(factory=list)
    documents: list[str] = attrs.field(factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was skipped and the new store is as it should be."""
        return not (self.skipped or self.check_errors or self.documents)
