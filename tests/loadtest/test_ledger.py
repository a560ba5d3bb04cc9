"""What a ledger lets a read find, and what it complains about."""

from __future__ import annotations

import pytest

from treestore.errors import InvalidArgument
from treestore.loadtest.content import Json, document, patch_to
from treestore.loadtest.http import http_target
from treestore.loadtest.ledger import HISTORY, Entry, Ledger
from treestore.loadtest.plan import MIX, parse_mix
from treestore.loadtest.statistics import percentiles_ms

SEED = 7


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(SEED)


def written(ledger: Ledger, count: int = 1) -> Entry:
    """A document at its ``count``th revision."""
    entry = ledger.add(3, 1)
    for _ in range(count):
        ledger.acknowledge(entry, ledger.begin(entry))
    return entry


def at(entry: Entry, revision: int) -> Json:
    return document(SEED, entry.id, entry.user, revision)


def test_what_was_acknowledged_is_what_may_be_found(ledger: Ledger) -> None:
    entry = written(ledger, 2)
    assert ledger.hold("get", entry.id, at(entry, 2), ledger.tick)
    for wrong in (None, at(entry, 1), at(entry, 3), {"_id": entry.id}, {**at(entry, 2), "x": 1}):
        assert not ledger.hold("get", entry.id, wrong, ledger.tick)
    assert not ledger.hold("get", "u00099-000", at(entry, 2), ledger.tick)
    assert ledger.wrong == len(ledger.problems) == 6
    assert ledger.problems[0] == "get: u00003-001 is gone; it was acknowledged as revision 2"
    assert ledger.problems[-1] == "get: u00099-000 was found and never written"


def test_a_read_that_began_earlier_may_find_what_was_then(ledger: Ledger) -> None:
    entry = written(ledger, 2)
    since = ledger.tick
    ledger.acknowledge(entry, ledger.begin(entry))
    under_way = ledger.begin(entry, deletes=True)
    assert [entry.may_be(revision, since) for revision in range(5)] == [0, 0, 1, 1, 1]
    assert [entry.may_be(revision, ledger.tick) for revision in range(5)] == [0, 0, 0, 1, 1]
    assert entry.may_be_absent(since)
    ledger.refuse(entry, under_way)
    assert not entry.may_be_absent(since)
    assert entry.certain


def test_an_unknown_outcome_may_show_for_ever(ledger: Ledger) -> None:
    entry = written(ledger)
    unknown = ledger.begin(entry)
    later = ledger.begin(entry)
    ledger.acknowledge(entry, later)
    assert not entry.certain
    for revision in (unknown, later):
        assert ledger.hold("stored", entry.id, at(entry, revision), ledger.tick)
    assert not ledger.hold("stored", entry.id, at(entry, 1), ledger.tick)


def test_a_long_read_is_given_the_benefit_of_the_doubt(ledger: Ledger) -> None:
    entry = written(ledger, 2)
    since = ledger.tick
    for _ in range(HISTORY + 1):
        ledger.acknowledge(entry, ledger.begin(entry))
    assert entry.may_be(2, since)
    assert not entry.may_be(2, ledger.tick)


def test_a_patch_makes_any_revision_the_next_one(ledger: Ledger) -> None:
    entry = written(ledger)
    wanted = at(entry, 9)
    assert {**at(entry, 8), **patch_to(wanted)["$set"]} == wanted
    assert at(entry, 9) == wanted != at(entry, 8)


def test_mixes() -> None:
    assert parse_mix(",".join(f"{kind}={share}" for kind, share in MIX.items())) == MIX
    assert parse_mix("writes=1, reads=3")["deletes"] == 0
    for bad in ("", "reads", "reads=0", "reads=-1", "reads=1.5", "walks=3", "reads=1,,writes=2"):
        with pytest.raises(InvalidArgument):
            parse_mix(bad)


def test_percentiles_are_of_the_nearest_rank() -> None:
    found = percentiles_ms([number / 1000 for number in range(100, 0, -1)])
    assert found == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert percentiles_ms([0.25])["p50"] == 250.0
    assert percentiles_ms([])["max"] == 0.0


def test_addresses_of_http() -> None:
    for address, wanted in {
        "127.0.0.1:7780": ("127.0.0.1", 7780, False),
        "[::1]:7780": ("::1", 7780, False),
        "http://example.org/": ("example.org", 80, False),
        "https://example.org": ("example.org", 443, True),
    }.items():
        target = http_target(address, None, None, 1.0)
        assert (target.host, target.port, target.tls is not None) == wanted
    for bad in ("", ":80", "ftp://a:1", "http://a/b", "http://u@a", "a:b", "a:99999", "http://[a"):
        with pytest.raises(InvalidArgument):
            http_target(bad, None, None, 1.0)
