"""What a hostile peer may send: conversations that are nearly right, then damaged.

Everything comes from a `random.Random`, so an input is its seed.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from protocol.messages import Cancel, Credit, Goodbye, Hello, Part, Ping, Pong, Request
from treestore.stores.operation import OPERATIONS

encode = msgspec.msgpack.encode

INTEGERS = (0, 1, 2, 7, -1, 127, 128, 255, 256, 65_535, 2**31, 2**32, 2**53, 2**63 - 1, 2**64 - 1)
TEXTS = ("", "p", "v1", "0000", "0001", "a\0b", "ü", "\U0001f4a9", "1-3,7", "1-1000000000", "../x")
INTERESTING = (b"\xc1", b"\xd9\xff", b"\xdf\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\x91" * 40)
"""Never used, a string and containers that are longer than what follows, nesting."""

NESTING = (100, 5_000, 60_000)


def value(random: Random, depth: int = 0) -> Any:
    """Any msgpack value; most are small."""
    dice = random.randrange(12 if depth < 3 else 9)
    if dice < 2:
        return random.choice(INTEGERS) * random.choice([1, 1, -1]) % 2**64 - random.choice([0, 1])
    if dice < 4:
        return random.choice(TEXTS) * random.choice([1, 1, 1, 2000])
    if dice < 6:
        return random.choice([b"", b"a", b"k%d" % random.randrange(30), random.randbytes(50)])
    if dice < 8:
        return random.choice([None, True, False, 0.0, 1.5, float("nan"), float("inf"), -0.0])
    if dice == 8:
        return msgspec.msgpack.Ext(random.randrange(128), random.randbytes(random.randrange(9)))
    if dice < 11:
        return [value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(TEXTS): value(random, depth + 1) for _ in range(random.randrange(4))}


def node(random: Random, depth: int = 0) -> dict[str, Any]:
    """A node of a tree, not always a sound one."""
    fields: dict[str, Any] = {"title": random.choice(TEXTS), "text": random.choice(TEXTS) * 20}
    if random.random() < 0.4:
        fields["node_id"] = random.choice(TEXTS)
    if random.random() < 0.2:
        fields[random.choice(["start_index", "page_start", "index", "summary"])] = value(random)
    if depth < 3 and random.random() < 0.5:
        fields["nodes"] = [node(random, depth + 1) for _ in range(random.randrange(4))]
    return fields


PLAUSIBLE: dict[str, Any] = {
    "key": lambda random: b"k%d" % random.randrange(30),
    "value": lambda random: random.randbytes(random.choice([0, 10, 2000])),
    "prefix": lambda random: random.choice([b"k", b"", None]),
    "puts": lambda random: [(b"k%d" % n, b"v") for n in range(random.randrange(5))],
    "deletes": lambda random: [b"k%d" % n for n in range(random.randrange(5))],
    "policy_id": lambda random: random.choice(["p", "q", "r"]),
    "version_id": lambda random: random.choice(["v1", "v2", None]),
    "node_id": lambda random: random.choice(["0000", "0001", "0002", "x"]),
    "parent_id": lambda random: random.choice(["0000", "0001", None]),
    "node_ids": lambda random: ["0000", "0001"],
    "pages": lambda random: random.choice([1, "1-3,7"]),
    "structure": lambda random: [node(random) for _ in range(random.randrange(4))],
    "nodes": lambda random: [node(random, 3) for _ in range(random.randrange(4))],
    "limit": lambda random: random.choice([1, 10, 100]),
    "name": lambda random: random.choice(["c", "d"]),
    "id": lambda random: random.choice(["a", "b"]),
    "document": lambda random: {"_id": random.choice(["a", "b"]), "n": value(random)},
    # Good ones for collections, and for namespaces too.
    "documents": lambda random: [
        {"id": n, "attributes": {"n": n}} for n in range(random.randrange(4))
    ],
    "patches": lambda random: [{"id": n, "attributes": {"n": 1}} for n in range(2)],
    "attributes": lambda random: {"n": random.choice([1, None, "x"])},
    "condition": lambda random: random.choice([{}, {"n": {"$lt": 2}}]),
    "schema": lambda random: {"vector": {"dim": 2}, "attributes": {"n": "int"}},
    "vector": lambda random: random.choice([[1, 0.5], [0, 0], b"\0" * 8]),
    "ids": lambda random: random.choice([[0, 1, "a"], ["a"]]),
    "top_k": lambda random: random.choice([1, 10]),
    "order_by": lambda random: random.choice(["n", "-id", None]),
    "source": lambda random: random.choice(["c", "d"]),
    "lines": lambda random: b'{"id": 1, "attributes": {"n": 1}}\n{"id": 2}\n',
    "first": lambda random: random.choice([1, 1, 3]),
    "import_id": lambda random: "one",
    "mode": lambda random: random.choice(["best_effort", "any", "all"]),
    "patch": lambda random: random.choice([{"n": 1}, {"$inc": {"n": 1}}, {"$set": {"l.3": 1}}]),
    "filter": lambda random: random.choice([{}, {"n": {"$gte": 0}}, {"n": {"$regex": "(a+)+$"}}]),
    "fields": lambda random: random.choice([["n"], "n", None]),
    "field": lambda random: "n",
    "by": lambda random: ["n"],
    "aggregates": lambda random: {"count": {"$count": {}}},
    "index_name": lambda random: "n",
    "query": lambda random: random.choice(TEXTS),
    "case_id": lambda random: random.choice(["case", "other"]),
    "tool_name": lambda random: "pi_search",
    "result": value,
    "trajectory_id": lambda random: random.choice(TEXTS),
    "steps": lambda random: [{"tool_name": "finish"}],
    "step": lambda random: {"tool_name": "finish"},
    "source_policy_id": lambda random: random.choice(["p", "z"]),
    "source_node_id": lambda random: random.choice(["0000", "x"]),
    "target_policy_id": lambda random: random.choice(["q", "z"]),
    "target_node_id": lambda random: random.choice(["0001", "y"]),
    "relation": lambda random: "cites",
    "criterion_id": lambda random: "one",
    "evidence": lambda random: [{"snippet": "s", "stance": "supports"}],
    "entity_type": lambda random: random.choice(["policy", "case"]),
    "entity_id": lambda random: random.choice(["p", "e"]),
    "prompt_id": lambda random: "prompt",
    "content": lambda random: random.choice(TEXTS),
    "version": lambda random: random.choice([1, 2, None]),
    "effective_from": lambda random: random.choice(["2024-01-01", "2025-07-01"]),
    "effective_to": lambda random: random.choice(["2024-12-31", None]),
    "when": lambda random: random.choice(["2024-06-01", "1999-01-01"]),
    "version_a": lambda random: "v1",
    "version_b": lambda random: "v2",
    "tags": lambda random: ["draft"],
    "tag": lambda random: "draft",
}


def parameters(random: Random, method: str) -> bytes:
    """The encoded parameters of a call, right or nearly so."""
    operation = OPERATIONS.get(method)
    if operation is None or random.random() < 0.05:
        return encode(value(random))
    chosen: dict[Any, Any] = {}
    for field in msgspec.structs.fields(operation.parameters):
        plausible = PLAUSIBLE.get(field.name)
        if not field.required and random.random() < (0.7 if plausible else 0.95):
            continue
        if plausible is not None and random.random() < 0.85:
            chosen[field.name] = plausible(random)
        else:
            chosen[field.name] = value(random)
    if random.random() < 0.03:
        chosen[random.choice(["unknown", 7, b"key", None])] = 1
    return encode(chosen)


def request(random: Random, number: int) -> bytes:
    """A request for any operation, or for none."""
    method = random.choice([*OPERATIONS, "session.open_snapshot", "session.close_snapshot", "x.y"])
    once = random.random() < 0.3
    return encode(
        Request(
            random.choice([number, number, number, 1]),
            method,
            msgspec.Raw(parameters(random, method)),
            random.choice([None, None, 0, 50, 10_000]),
            random.choice([None, None, None, number - 1 or 1, 1]),
            random.randrange(1, 9) if once else None,
            random.randrange(9) if once else 0,
            transaction=random.choice([None, None, None, 1, 2]),
            begin_ms=random.choice([None, 0, 10_000]),
        )
    )


def message(random: Random, number: int, *, rude: bool) -> bytes:
    """One message of a client, with ``rude`` perhaps of no client."""
    dice = random.randrange(20 if rude else 17)
    if dice < 12:
        return request(random, number)
    if dice == 12:
        return encode(Credit(random.randrange(1, number + 1), random.choice([1, 5000, 2**40])))
    if dice == 13:
        return encode(Cancel(random.randrange(1, number + 1)))
    if dice == 14:
        return encode(random.choice([Ping(number), Pong(number)]))
    if dice == 15:
        return encode(Goodbye("", random.choice(TEXTS)) if rude else Ping(number))
    if dice == 16:
        inner = request(random, number)
        cut = random.randrange(1, len(inner))
        parts = [
            Part(number, False, memoryview(inner[:cut])),
            Part(number, True, memoryview(inner[cut:])),
        ]
        return b"".join(framed(encode(part)) for part in parts)[4:]
    if dice == 17:
        return b"\x91" * random.choice(NESTING) + b"\x01"
    if dice == 18:
        return encode([random.randrange(30), *(value(random) for _ in range(random.randrange(6)))])
    return random.choice(INTERESTING) + random.randbytes(random.randrange(20))


def hello(random: Random) -> bytes:
    """A hello, mostly a right one."""
    if random.random() < 0.9:
        return framed(encode(Hello(client_id=bytes(15) + bytes([random.randrange(3)]))))
    return framed(encode([1, value(random), value(random), value(random), value(random)]))


def framed(data: bytes) -> bytes:
    """With its length in front."""
    return len(data).to_bytes(4, "big") + data


def damage(random: Random, data: bytes) -> bytes:
    """Some bytes flipped, removed, doubled, or replaced by interesting ones."""
    damaged = bytearray(data)
    for _ in range(random.choice([0, 0, 1, 1, 2, 5])):
        if not damaged:
            break
        at = random.randrange(len(damaged))
        dice = random.randrange(6)
        if dice == 0:
            damaged[at] ^= 1 << random.randrange(8)
        elif dice == 1:
            damaged[at] = random.randrange(256)
        elif dice == 2:
            del damaged[at : at + random.randrange(1, 9)]
        elif dice == 3:
            damaged[at:at] = damaged[at : at + random.randrange(1, 40)]
        elif dice == 4:
            damaged[at:at] = random.choice(INTERESTING)
        else:
            del damaged[at:]
    return bytes(damaged)


def conversation(random: Random) -> tuple[bytes, bytes]:
    """A hello, and what is sent once it is answered; with damage."""
    count = random.choice([1, 2, 5, 12])
    rude = random.random() < 0.4
    sent = b"".join(framed(message(random, n, rude=rude)) for n in range(1, count + 1))
    greeting = hello(random)
    if random.random() < 0.1:
        greeting = damage(random, greeting)
    return greeting, damage(random, sent) if random.random() < 0.5 else sent


def chunks(random: Random, data: bytes) -> list[bytes]:
    """The same bytes as a network may bring them."""
    if random.random() < 0.4:
        return [data] if data else []
    size = random.choice([1, 3, 17, 200, 4096])
    if len(data) > 3000:
        size = max(size, 200)
    return [data[at : at + size] for at in range(0, len(data), size)]
