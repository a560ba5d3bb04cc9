"""API keys: how they look, how they are checked, and their records in the tree.

A key is ``ts_<key id>_<secret>``: the id in clear, so that a check is one look-up; then 256 random
bits. Under ``50 (str key id)`` the tree has a msgpack map: what `ApiKeyInfo` shows, a salt, and a
hash of the secret.

The hash is BLAKE2b with a salt per key and a personalisation, and deliberately none of the slow
ones (scrypt, argon2, bcrypt). Those exist because people choose passwords from a few billion
likely ones, so that a thief of the hashes could try them all; each try must then be expensive.
Nobody can try 2**256 secrets, however cheap a try is, so slowness would protect nothing, while
every connection (and every HTTP request) would pay for it, and strangers could make the server
compute by sending wrong keys. The salt keeps equal secrets from having equal hashes; the
personalisation keeps this hash from meaning anything elsewhere.

A revoked or expired record stays, for the listing and the audit trail, and because a store that
once had a key never again answers without one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import attrs
import msgspec

from treestore.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from treestore.model.security import ApiKeyInfo
from treestore.stores.access import Read, Write
from treestore.stores.keys import Keyspace, pack_str
from treestore.stores.security.scopes import parse_scopes

KEY_ID_BITS: Final = 80
SECRET_BITS: Final = 256
KEYS_MAX: Final = 10_000
"""Records that there may be, revoked ones included; beyond it the oldest revoked or expired one
makes room."""

NAME_SIZE_MAX: Final = 200
RATE_MAX: Final = 1e6
TOKEN_SIZE_MIN: Final = 16
TOKEN_SIZE_MAX: Final = 200

_PERSON: Final = b"TreeStoreApiKey1"
_match = re.compile(r"ts_([a-z2-7]{16})_([a-z2-7]{52})", re.ASCII).fullmatch


@attrs.frozen(kw_only=True)
class KeyRecord:
    """A key as the tree has it."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    rate_limit: float | None
    salt: bytes = attrs.field(repr=False)
    hash: bytes = attrs.field(repr=False)

    def status(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"

    def info(self, now: datetime) -> ApiKeyInfo:
        """What may be shown of it."""
        fields = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(ApiKeyInfo)
            if field.name != "status"
        }
        return ApiKeyInfo(status=self.status(now), **fields)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeyRecord).decode


# --- what a client sends ---------------------------------------------------------------------


@attrs.frozen
class Presented:
    """A key as a client sent it, taken apart."""

    key_id: str
    secret: str = attrs.field(repr=False)


def parse_key(text: str) -> Presented | None:
    """The parts of a key; None where it is none."""
    found = _match(text)
    return None if found is None else Presented(found[1], found[2])


def digest(secret: str, salt: bytes) -> bytes:
    """What is stored instead of a secret.

    Of the text itself, not of the bits it stands for: each secret has one spelling.
    """
    return hashlib.blake2b(
        secret.encode("ascii"), digest_size=32, salt=salt, person=_PERSON
    ).digest()


def is_secret_of(record: KeyRecord, secret: str) -> bool:
    """Whether the secret is this key's; takes the same time whatever is wrong with it."""
    return hmac.compare_digest(digest(secret, record.salt), record.hash)


# --- making one ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class KeyRequest:
    """A checked wish for a key."""

    scopes: tuple[str, ...]
    name: str
    expires_at: datetime | None
    rate_limit: float | None

    @classmethod
    def of(cls, scopes: Any, name: Any, expires_at: datetime | None, rate_limit: Any) -> KeyRequest:
        """Check what somebody asked for.

        Raises:
            InvalidArgument: something of it makes no sense.
        """
        parsed = parse_scopes(scopes)
        if not isinstance(name, str) or len(name) > NAME_SIZE_MAX:
            raise InvalidArgument(f"name is a string of at most {NAME_SIZE_MAX} characters.")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidArgument("name holds half of a surrogate pair.") from None
        if rate_limit is not None and (
            isinstance(rate_limit, bool)
            or not isinstance(rate_limit, int | float)
            or not 0 < rate_limit <= RATE_MAX
        ):
            raise InvalidArgument(
                f"rate_limit is a number of requests a second, above 0 and at most {RATE_MAX:g}, "
                f"not {rate_limit!r:.40}."
            )
        return cls(
            scopes=tuple(map(str, parsed)),
            name=name,
            expires_at=expires_at,
            rate_limit=None if rate_limit is None else float(rate_limit),
        )


@attrs.frozen
class NewKey:
    """A key about to be stored: its name, its secret and what will be kept of that."""

    key_id: str
    salt: bytes
    secret: str = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """What a client sends."""
        return f"ts_{self.key_id}_{self.secret}"


def derive_key(seed: bytes, token: str, request: KeyRequest) -> NewKey:
    """The key that a request gets: the same one for the same token, seed and wish.

    So a client that lost the answer may ask again and gets it again, although nothing that is
    stored, in the tree or in the log, lets anybody compute the secret: the seed is in the
    server's memory only. After a restart the seed is another one, and `create` refuses the token.

    Args:
        seed: 32 random bytes that live as long as the process.
        token: names the request; any text that is not used twice.
    """
    what = _encode((token, request.scopes, request.name, request.expires_at, request.rate_limit))

    def derived(key: bytes, purpose: bytes, size: int) -> bytes:
        return hashlib.blake2b(what, digest_size=size, key=key, person=purpose).digest()

    # The id and the salt depend on the token alone, not on the seed or the wish: a token that was
    # used before the restart, or for another wish, is recognised.
    base = hashlib.blake2b(token.encode(), digest_size=26, person=b"TreeStoreKeyName").digest()
    secret = derived(seed, b"TreeStoreSecret1", SECRET_BITS // 8)
    return NewKey(_text(base[:10]), base[10:], _text(secret))


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def check_token(token: Any) -> str:
    """A caller's token; `InvalidArgument` where it is none."""
    if (
        not isinstance(token, str)
        or not token.isascii()
        or not TOKEN_SIZE_MIN <= len(token) <= TOKEN_SIZE_MAX
    ):
        raise InvalidArgument(
            f"token is {TOKEN_SIZE_MIN} to {TOKEN_SIZE_MAX} ASCII characters that name this "
            "request and no other; leave it out to have one made."
        )
    return token


# --- the records -----------------------------------------------------------------------------


def _key(key_id: str) -> bytes:
    return Keyspace.API_KEYS + pack_str(key_id)


def check_key_id(key_id: Any) -> str:
    """A key id; `InvalidArgument` where it is none. It is no secret and may be told back."""
    if not isinstance(key_id, str) or re.fullmatch(r"[a-z2-7]{16}", key_id, re.ASCII) is None:
        # Somebody may have given the whole key: it must not come back in a message or a log.
        raise InvalidArgument("A key id is the 16 characters between ts_ and the secret.")
    return key_id


def records(txn: Read) -> Iterator[KeyRecord]:
    """Every key that there is, in the order of their ids."""
    for _, value in txn.scan(Keyspace.API_KEYS, Keyspace.AUDIT):
        yield _decode(value)


def create(txn: Write, new: NewKey, request: KeyRequest) -> KeyRecord:
    """Store a new key, or find the one that an earlier attempt of the same request stored.

    Raises:
        AlreadyExists: an earlier attempt stored it and its secret is known to nobody any more, or
            the token was used for another request.
        ResourceExhausted: there are as many keys as there may be, none of them revoked.
        InvalidArgument: it would have expired already.
    """
    stored = txn.get(_key(new.key_id))
    if stored is not None:
        record = _decode(stored)
        if record.revoked_at is None and is_secret_of(record, new.secret):
            return record
        raise AlreadyExists(
            f"This request was made before, and key {new.key_id} came of it, but its secret can "
            "be shown no more. Revoke that key if nobody has the secret, and create another one."
        )
    if request.expires_at is not None and request.expires_at <= txn.now:
        raise InvalidArgument(f"expires_at ({request.expires_at.isoformat()}) has passed already.")
    _make_room(txn)
    record = KeyRecord(
        key_id=new.key_id,
        name=request.name,
        scopes=request.scopes,
        created_at=txn.now,
        expires_at=request.expires_at,
        rate_limit=request.rate_limit,
        salt=new.salt,
        hash=digest(new.secret, new.salt),
    )
    txn.put(_key(record.key_id), _encode(record))
    return record


def _make_room(txn: Write) -> None:
    found = list(records(txn))
    if len(found) < KEYS_MAX:
        return
    gone = [record for record in found if record.status(txn.now) != "active"]
    if not gone:
        raise ResourceExhausted(
            f"There are {len(found)} API keys, as many as there may be; revoke some."
        )
    oldest = min(gone, key=lambda record: record.revoked_at or record.expires_at or txn.now)
    txn.delete(_key(oldest.key_id))


def revoke(txn: Write, key_id: str) -> bool:
    """Note that a key does not count any more; False where that was so before.

    Raises:
        NotFound: there is no such key.
    """
    stored = txn.get(_key(check_key_id(key_id)))
    if stored is None:
        raise NotFound(f"There is no API key {key_id}; list them to see which there are.")
    record = _decode(stored)
    if record.revoked_at is not None:
        return False
    txn.put(_key(key_id), _encode(attrs.evolve(record, revoked_at=txn.now)))
    return True


def note_uses(txn: Write, uses: dict[str, datetime]) -> None:
    """Write when keys were last used; what is older than what is known changes nothing."""
    for key_id, used_at in uses.items():
        stored = txn.get(_key(key_id))
        if stored is None:
            continue
        record = _decode(stored)
        if record.last_used_at is None or record.last_used_at < used_at:
            txn.put(_key(key_id), _encode(attrs.evolve(record, last_used_at=used_at)))


USE_STALE: Final = timedelta(minutes=1)
"""How exact the time of the last use is."""


def check_keys(txn: Read) -> list[str]:
    """What is wrong with the stored keys, a sentence each; empty when all is well."""
    problems: list[str] = []
    for key, value in txn.scan(Keyspace.API_KEYS, Keyspace.AUDIT):
        try:
            record = _decode(value)
            parse_scopes(record.scopes)
        except (msgspec.MsgspecError, InvalidArgument, ValueError) as error:
            problems.append(f"The record of API key {key[1:]!r} cannot be read: {error}.")
            continue
        if _key(record.key_id) != key or len(record.salt) != 16 or len(record.hash) != 32:
            problems.append(f"The record of API key {record.key_id} contradicts itself.")
    return problems
