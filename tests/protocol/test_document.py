"""``docs/protocol.md`` says what the code does."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from actors.listener import accept_any
from actors.memory import MemoryBudget
from actors.session import Session
from actors.wire import Counters, Methods, Shared, WireSettings
from protocol import codes, messages
from protocol.limits import Limits
from tests.actors.fake_host import FakeHost

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def conversation() -> list[tuple[str, bytes]]:
    """The worked example: who speaks, and the bytes, in turns."""
    block = TEXT.split("```wire\n")[1].split("```")[0]
    lines = [line.split("|")[0] for line in block.splitlines() if line]
    return [
        (speaker, b"".join(bytes.fromhex(line[1:]) for line in said))
        for speaker, said in groupby(lines, key=lambda line: line[0])
    ]


async def test_the_worked_example_is_what_happens() -> None:
    shared = Shared(
        host=FakeHost(),
        settings=WireSettings(),
        authenticate=accept_any,
        budget=MemoryBudget(2**20),
        counters=Counters(),
        methods=Methods(),
    )
    client, server = trio.testing.memory_stream_pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Session(shared, server, 7, "memory").run)
            for speaker, said in conversation():
                if speaker == "C":
                    await client.send_all(said)
                    continue
                heard = b""
                while len(heard) < len(said):
                    heard += await client.receive_some()
                assert heard.hex(" ") == said.hex(" ")
            assert await client.receive_some() == b""
            await client.aclose()


def test_every_code_is_listed() -> None:
    for code in codes.ALL:
        assert f"| `{code}` |" in TEXT


def test_every_limit_is_listed_with_its_default() -> None:
    for name, value in msgspec.structs.asdict(Limits()).items():
        assert f"| `{name}` | {value:,} |" in TEXT


KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not Limits
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_is_listed_with_its_fields(kind: type[msgspec.Struct]) -> None:
    tag = kind.__struct_config__.tag
    [row] = [line for line in TEXT.splitlines() if line.startswith(f"| {tag} | {kind.__name__} |")]
    fields = row.split("|")[4]
    positions = [fields.index(name) for name in kind.__struct_fields__]
    assert positions == sorted(positions)
