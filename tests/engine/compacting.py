"""Compactions on an engine without actors, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treestore.engine.compaction import MoveStep, Quiet, Search, Settle, plan
from treestore.engine.engine import Engine


def steps_of(engine: Engine) -> Iterator[object]:
    """A compaction that stops after each step; anything may be done to the engine in between."""
    steps = plan(engine)
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        answer = None
        if isinstance(step, Quiet):
            answer = step.run()
            yield step
            continue
        if isinstance(step, Search):
            try:
                answer = step.run()
            finally:
                step.done()
        elif isinstance(step, MoveStep):
            answer = execute(engine, step)
        elif isinstance(step, Settle):
            engine.checkpoint_now(settle=True)
        elif engine.shorten():
            while engine.pages.cut():
                pass
        yield step


def execute(engine: Engine, step: MoveStep) -> int:
    """Run a step as the writer would, as a group of its own."""
    transaction = engine.begin(moves=True)
    try:
        done = step.run(transaction)
        engine.commit(transaction)
    except BaseException:
        engine.rollback(transaction)
        raise
    group = engine.seal()
    assert group is not None
    engine.publish(group, engine.append(group))
    return done


def compact(engine: Engine) -> None:
    """A whole compaction."""
    for _ in steps_of(engine):
        pass
