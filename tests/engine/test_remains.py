"""Old states are let go of step by step, and never while somebody reads them."""

from __future__ import annotations

import gc
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import close_checked, contents, open_small, put_now
from treestore.engine.engine import Engine
from treestore.engine.node import Node, Ref
from treestore.engine.remains import FEW, NODE_LOOKS, STEP, Remains

KEYS = 6000


def nodes_alive() -> int:
    """Tree nodes that exist in this process."""
    return sum(type(thing) is Node for thing in gc.get_objects())


def nodes_below(root: Ref) -> int:
    """Nodes in memory of one state, what unsettled leaves are based on included."""
    node = root.node
    if node is None:
        return 0
    return 1 + (node.base is not None) + sum(map(nodes_below, node.children or ()))


def overwrite(engine: Engine, random: Random, times: int) -> None:
    """Single puts, each a group of its own."""
    for _ in range(times):
        transaction = engine.begin()
        transaction.put(b"%05d" % random.randrange(KEYS), random.randbytes(20))
        engine.write_now(transaction)


def test_a_state_goes_in_bounded_steps_once_its_reader_does() -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    gc.collect()
    strangers = nodes_alive()
    put_now(store, [(b"%05d" % n, bytes(20)) for n in range(KEYS)])
    calls: list[None] = []
    remains = engine.remains = Remains(lambda: calls.append(None))
    lease = engine.snapshot("test")
    before = contents(store)
    overwrite(engine, Random(1), 4000)
    for _ in range(10):
        assert not remains.step()
    assert len(calls) == 1
    assert remains
    assert dict(lease.read().scan(b"", None)) == before

    lease.close()
    del lease
    alive = nodes_alive()
    steps = 1
    while remains.step():
        steps += 1
        fewer = nodes_alive()
        # A leaf that was never settled takes along the one that it is based on.
        assert alive - fewer <= 2 * (FEW + STEP // NODE_LOOKS)
        alive = fewer
    assert steps > 1
    assert not remains
    # One more: the empty store's root, which has a page, stays in the cache.
    assert nodes_alive() - strangers == nodes_below(engine.durable.root) + 1
    close_checked(store)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.sampled_from(["open", "close", "write", "many", "step"])))
def test_readers_see_their_state_whatever_is_taken_apart(seed: int, what: list[str]) -> None:
    random = Random(seed)
    store = open_small(SimDisk(1))
    engine = store.engine
    engine.remains = remains = Remains(lambda: None)
    put_now(store, [(b"%05d" % n, bytes(20)) for n in range(KEYS)])
    leases = [(engine.snapshot("test"), contents(store))]
    for action in what:
        if action == "open":
            leases.append((engine.snapshot("test"), contents(store)))
        elif action == "close" and leases:
            leases.pop(random.randrange(len(leases)))[0].close()
        elif action == "write":
            overwrite(engine, random, 20)
        elif action == "many":
            put_now(store, [(b"%05d" % n, random.randbytes(9)) for n in range(0, KEYS, 2)])
        else:
            remains.step()
    for lease, expected in leases:
        assert dict(lease.read().scan(b"", None)) == expected
        lease.close()
    close_checked(store)


def test_what_nobody_reads_goes_at_once() -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    put_now(store, [(b"%05d" % n, bytes(20)) for n in range(KEYS)])
    calls: list[None] = []
    remains = engine.remains = Remains(lambda: calls.append(None))
    overwrite(engine, Random(1), 300)
    assert not remains
    checkpoint = engine.begin_checkpoint()
    assert checkpoint is not None
    overwrite(engine, Random(2), 300)
    # The state that is being written, and none of those that came after it.
    assert len(calls) == 1
    remains.clear()
    overwrite(engine, Random(3), 300)
    assert not remains
    checkpoint.run()
    engine.finish_checkpoint()
    close_checked(store)
