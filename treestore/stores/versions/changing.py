"""Changes of what is known about versions. Each is one transaction and one revision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import attrs
from msgspec import UNSET, UnsetType

from treestore.errors import InvalidArgument
from treestore.model.versions import PolicyVersion, Recording
from treestore.stores.access import Write
from treestore.stores.documents.layout import packed_name
from treestore.stores.documents.policies import Day, to_day, to_period
from treestore.stores.json_values import JsonObject, check_metadata
from treestore.stores.versions.book import Book, stored_versions
from treestore.stores.versions.layout import Record, Shelf

TAGS_MAX: Final = 100
"""Tags of one version, at most."""

_DAY: Final = timedelta(days=1)


# --- arguments -------------------------------------------------------------------------------


def checked_text(value: Any, what: str) -> str:
    """A string that can be stored; `InvalidArgument` for anything else."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is a string, not {type(value).__name__}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} holds half of a surrogate pair, which is no character."
        ) from None
    return value


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Tags in order, each once; `InvalidArgument` for what is none."""
    if isinstance(tags, str) or not isinstance(tags, Sequence | set | frozenset):
        raise InvalidArgument(f"tags is a list of strings, not {type(tags).__name__}.")
    for tag in tags:
        packed_name("A tag", tag)
    unique = sorted(set(tags))
    if len(unique) > TAGS_MAX:
        raise InvalidArgument(f"A version has at most {TAGS_MAX} tags, not {len(unique)}.")
    return tuple(unique)


def checked_facts(
    description: str | UnsetType,
    tags: Sequence[str] | UnsetType,
    metadata: dict[str, Any] | UnsetType | None = UNSET,
    created_by: str | UnsetType = UNSET,
) -> dict[str, Any]:
    """What is given of a version beside its days, as fields of its state."""
    facts: dict[str, Any] = {}
    if description is not UNSET:
        facts["description"] = checked_text(description, "description")
    if tags is not UNSET:
        facts["tags"] = checked_tags(tags)
    if metadata is not UNSET:
        facts["metadata"] = check_metadata(metadata)
    if created_by is not UNSET:
        facts["created_by"] = checked_text(created_by, "created_by")
    return facts


def check_supersedes(supersedes: Any, version_id: str, start: date | None) -> None:
    """Raise `InvalidArgument` unless a version that starts then can supersede that one."""
    if supersedes is None:
        return
    packed_name("supersedes", supersedes)
    if supersedes == version_id:
        raise InvalidArgument(f"Version {version_id!r} cannot supersede itself.")
    if start is None:
        raise InvalidArgument(
            "supersedes needs effective_from: the other version ends the day before."
        )
    if start == date.min:
        raise InvalidArgument(f"No version can end before {start}, the first day there is.")


# --- recording -------------------------------------------------------------------------------


def supersede(book: Book, other_id: str, version_id: str, start: date) -> None:
    """End a version the day before another one starts.

    Raises:
        NotFound: there is no such version.
        InvalidArgument: it starts no earlier.
    """
    old = book.expect(other_id)
    state = old.state
    if state.effective_from is not None and state.effective_from >= start:
        raise InvalidArgument(
            f"Version {other_id!r} starts on {state.effective_from}, so it cannot end before "
            f"{start}. Without supersedes, the version with the later start is in effect, and of "
            f"two with the same start the one recorded later."
        )
    end = start - _DAY
    ended = state.effective_to is not None and state.effective_to < end
    if ended and state.superseded_by != version_id:
        assert state.effective_to is not None
        end = state.effective_to
    new = book.state(old, other_id, effective_to=end, superseded_by=version_id)
    book.write(old, attrs.evolve(old, state=new, declared=True), "superseded")


def create(
    txn: Write,
    policy_id: str,
    version_id: str,
    *,
    effective_from: Day | None,
    effective_to: Day | None = None,
    supersedes: str | None = None,
    description: str = "",
    tags: Sequence[str] = (),
    created_by: str = "",
    metadata: JsonObject | None = None,
) -> PolicyVersion:
    """Record a version and the days on which it is in effect. It needs no stored document.

    Recording a version again corrects it: the new facts take the place of the old ones, all of
    them; what was believed before stays known (`as_of` with ``known_at``, `history`). Among
    versions with the same start the one recorded later is in effect.

    Args:
        policy_id: 1 to 200 bytes of UTF-8.
        version_id: likewise, unique within the policy.
        effective_from: first day it is in effect; None: since ever (then ``effective_to`` says
            until when).
        effective_to: last day it is in effect (inclusive); None: without end.
        supersedes: a version that ends the day before this one starts (one that ended earlier
            keeps its end).
        description: free text.
        tags: up to 100 words to find it by.
        created_by: who says so.
        metadata: JSON-like facts.

    Raises:
        InvalidArgument: no day at all, an end before its start, a version that supersedes itself
            or one that starts no earlier.
        NotFound: there is no version ``supersedes``.
    """
    period = to_period(effective_from, effective_to)
    if period == (None, None):
        raise InvalidArgument(
            "Say when the version is in effect: effective_from, effective_to or both."
        )
    facts = checked_facts(description, tags, metadata, created_by)
    packed_name("version_id", version_id)
    check_supersedes(supersedes, version_id, period[0])
    book = Book(txn, policy_id)
    record = record_anew(book, version_id, period, supersedes, facts, declared=True)
    book.close()
    return record.state


def record_anew(
    book: Book,
    version_id: str,
    period: tuple[date | None, date | None],
    supersedes: str | None,
    facts: dict[str, Any],
    *,
    stored: int | None = None,
    declared: bool = False,
) -> Record:
    """Record a dated version as the latest one.

    Args:
        stored: the revision that stored its document; None: as before.
        declared: whether ``versions`` says so.
    """
    if supersedes is not None:
        assert period[0] is not None
        supersede(book, supersedes, version_id, period[0])
    old = book.find(version_id)
    if stored is None:
        stored = old.stored if old is not None else 0
    state = book.state(
        old,
        version_id,
        effective_from=period[0],
        effective_to=period[1],
        supersedes=supersedes,
        superseded_by=None,
        has_document=bool(stored),
        **facts,
    )
    known = old is not None and (old.dated or old.declared)
    declared = declared or (old is not None and old.declared)
    change: Recording = "corrected" if known else "created"
    return book.write(old, Record(state, book.revision, stored, declared), change)


def retire(txn: Write, policy_id: str, version_id: str, effective_to: Day) -> PolicyVersion:
    """Set the last day on which a version is in effect, with no successor.

    An end that was given before is corrected, be the new one earlier or later.

    Raises:
        NotFound: there is no such version.
        InvalidArgument: the day lies before the version's first.
    """
    end = to_day(effective_to, "effective_to")
    packed_name("version_id", version_id)
    book = Book(txn, policy_id)
    old = book.expect(version_id)
    to_period(old.state.effective_from, end)
    return _changed(book, old, {"effective_to": end}, "retired")


def update(
    txn: Write,
    policy_id: str,
    version_id: str,
    *,
    effective_from: Day | UnsetType | None = UNSET,
    effective_to: Day | UnsetType | None = UNSET,
    description: str | UnsetType = UNSET,
    tags: Sequence[str] | UnsetType = UNSET,
    created_by: str | UnsetType = UNSET,
    metadata: JsonObject | UnsetType | None = UNSET,
) -> PolicyVersion:
    """Change some facts of a version; those left UNSET stay as they are.

    Unlike recording it again with `create`, this leaves alone which of two versions with the same
    start was recorded later. What changes nothing is not recorded.

    Args:
        effective_from: None: since ever.
        effective_to: None: without end.
        description: "" for none.
        tags: take the place of all its tags.
        created_by: "" for nobody.
        metadata: takes the place of all of it; None for none.

    Raises:
        NotFound: there is no such version.
        InvalidArgument: an end before its start; no day would be left of a dated version (see
            `delete`).
    """
    fields = checked_facts(description, tags, metadata, created_by)
    packed_name("version_id", version_id)
    book = Book(txn, policy_id)
    old = book.expect(version_id)
    first = old.state.effective_from if effective_from is UNSET else effective_from
    last = old.state.effective_to if effective_to is UNSET else effective_to
    fields["effective_from"], fields["effective_to"] = period = to_period(first, last)
    if old.dated and period == (None, None):
        raise InvalidArgument(
            f"Version {version_id!r} needs a first or a last day; versions.delete takes both back."
        )
    dates = period != (old.state.effective_from, old.state.effective_to)
    return _changed(book, old, fields, "corrected" if dates else "updated")


def set_tags(txn: Write, policy_id: str, version_id: str, tags: Sequence[str]) -> PolicyVersion:
    """Give a version these tags and no others.

    Raises:
        NotFound: there is no such version.
        InvalidArgument: a tag is no string, empty or longer than 200 bytes; more than 100 tags.
    """
    fields = checked_facts(UNSET, tags)
    packed_name("version_id", version_id)
    book = Book(txn, policy_id)
    return _changed(book, book.expect(version_id), fields, "updated")


def _changed(book: Book, old: Record, fields: dict[str, Any], change: Recording) -> PolicyVersion:
    """Record other values of some fields, unless they are what they were."""
    if all(getattr(old.state, name) == value for name, value in fields.items()):
        return old.state
    state = book.state(old, old.state.version_id, **fields)
    new = book.write(old, attrs.evolve(old, state=state, declared=True), change)
    book.close()
    return new.state


# --- taking back -----------------------------------------------------------------------------


def delete(txn: Write, policy_id: str, version_id: str) -> bool:
    """Take back what was recorded of a version; returns whether there was anything.

    From now on it is in effect on no day. What was believed before stays known, and its history
    too (`erase` forgets that). A version that it superseded keeps its end. A stored document
    stays, without days.
    """
    packed_name("version_id", version_id)
    book = Book(txn, policy_id)
    old = book.find(version_id)
    if old is None or not (old.dated or old.declared):
        return False
    if old.stored:
        withdrawn = book.undated(old)
        facts: dict[str, Any] = {"description": "", "tags": (), "created_by": "", "metadata": {}}
        state = attrs.evolve(withdrawn.state, supersedes=None, superseded_by=None, **facts)
        book.write(old, attrs.evolve(withdrawn, state=state), "withdrawn")
    else:
        book.withdraw(old)
    book.close()
    return True


def erase(txn: Write, policy_id: str) -> bool:
    """Forget all that was ever recorded of a policy's versions, their history too.

    Returns:
        Whether there was anything.

    Raises:
        InvalidArgument: documents of the policy are stored; delete them first.
    """
    shelf = Shelf(policy_id)
    stored = stored_versions(txn, policy_id)
    if stored:
        raise InvalidArgument(
            f"Documents of policy {policy_id!r} are stored ({len(stored)}); delete them first with "
            f"documents.delete_policy."
        )
    return sum(txn.delete_range(start, end) for start, end in shelf.everything()) > 0


# --- documents -------------------------------------------------------------------------------


def document_stored(
    txn: Write,
    policy_id: str,
    version_id: str,
    period: tuple[date | None, date | None],
    supersedes: str | None,
    facts: dict[str, Any],
) -> PolicyVersion:
    """Note that a document is stored for a version, in the same transaction.

    With days the version is recorded anew. Without, the days that ``versions`` declared stay, and
    any others are taken back.
    """
    book = Book(txn, policy_id)
    if period != (None, None):
        record = record_anew(book, version_id, period, supersedes, facts, stored=book.revision)
    else:
        record = _stored_undated(book, version_id, facts)
    book.close()
    return record.state


def _stored_undated(book: Book, version_id: str, facts: dict[str, Any]) -> Record:
    old = book.find(version_id)
    stored = book.revision
    if old is None:
        state = book.state(None, version_id, has_document=True, **facts)
        return book.write(None, Record(state, book.revision, stored), None)
    if old.declared:
        if all(getattr(old.state, name) == value for name, value in facts.items()):
            state = attrs.evolve(old.state, has_document=True)
            return book.write(old, attrs.evolve(old, state=state, stored=stored), None)
        state = book.state(old, version_id, has_document=True, **facts)
        return book.write(old, attrs.evolve(old, state=state, stored=stored), "updated")
    fields = {**facts, "has_document": True, "supersedes": None, "superseded_by": None}
    state = book.state(old, version_id, effective_from=None, effective_to=None, **fields)
    new = Record(state, book.revision, stored)
    return book.write(old, new, "withdrawn" if old.dated else None)


def document_deleted(txn: Write, policy_id: str, version_id: str) -> None:
    """Note that a version's document is gone; a version that came with it alone goes too."""
    book = Book(txn, policy_id)
    old = book.find(version_id)
    assert old is not None
    if old.declared:
        state = attrs.evolve(old.state, has_document=False)
        book.write(old, attrs.evolve(old, state=state, stored=0), None)
    else:
        book.withdraw(old)
    book.close()
