"""Bit rot: every byte of a small store is changed in turn, and the store is opened and read.

Each change must be noticed with a typed error that names the place, or be made good without loss,
or lie in a byte that nothing uses: which of these, an independent map says for every byte
(`scripts.torture.bytemap`). More is as wrong as less. So are writes that the medium lost, or put
into another place.

    python -m scripts.torture.bitrot --seed 7            # every byte, some minutes
    python -m scripts.torture.bitrot --seed 7 --sample   # headers and a sample, some seconds
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

import attrs

from scripts.torture.bytemap import Span, Use, map_store
from treestore.engine.check import check_engine
from treestore.engine.directory import OpenStore, open_engine
from treestore.engine.memorydisk import Images, MemoryDisk
from treestore.engine.options import EngineOptions, Environment
from treestore.errors import CorruptionError

DIRECTORY = "/db"
PAGES = f"{DIRECTORY}/pages"

OPTIONS = EngineOptions(
    page_size_bytes=1024,
    cache_size_bytes=1 << 20,
    log_size_bytes_max=4 << 20,
    log_segment_size_bytes_min=16384,
    log_segment_size_bytes_max=16384,
    transaction_size_bytes_max=1 << 20,
    headroom_pages=4,
)
"""Everything small, so that few bytes are many structures."""

SAMPLE_HEAD_EVERY = 6
SAMPLE_BODY_EVERY = 160
SAMPLE_UNUSED_EVERY = 800
"""One byte in so many is changed where only a sample is."""

FAILURES_MAX = 50

Contents = dict[bytes, bytes]


@attrs.define
class Specimen:
    """A store to be damaged.

    Attributes:
        name: what is special about it.
        images: its files.
        earlier: its files before its last checkpoint.
        contents: what is in it.
        before_last: what was in it before the last group of the log.
        spans: what its bytes are for.
    """

    name: str
    images: Images
    earlier: Images
    contents: Contents
    before_last: Contents
    spans: list[Span]


@attrs.define
class RotResult:
    """What came of a run.

    Attributes:
        seed: what it was run with.
        trials: how many damaged stores were opened.
        by_use: how many for each use of the damaged bytes.
        failures: what was not as it must be, a sentence each; empty when all is well.
        seconds: of the processor.
    """

    seed: int
    trials: int = 0
    by_use: Counter[str] = attrs.field(factory=Counter)
    failures: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything was noticed, made good or unused."""
        return not self.failures


@attrs.define
class Outcome:
    """What opening and reading a damaged store showed."""

    opened: bool = False
    rebuilt: bool = False
    torn: bool = False
    error: CorruptionError | None = None
    contents: Contents | None = None
    check_errors: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    crash: BaseException | None = None
    untouched: bool = True
    """Whether a refused store was left as it was."""


# -- specimens ------------------------------------------------------------------------------------


class _Clock:
    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def environment(disk: MemoryDisk, seed: int) -> Environment:
    """Everything repeatable."""
    return Environment(disk, _Clock(), Random(seed))


class _Builder:
    """Makes a store with a random history."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.seed = random.getrandbits(30)
        self.disk = MemoryDisk()
        self.state: Contents = {}
        self.before: Contents = {}
        self.earlier: Images = {}
        self.touched: set[bytes] = set()
        """Keys changed since the last checkpoint."""
        self.store = self._open()

    def _open(self) -> OpenStore:
        self.seed += 1
        return open_engine(DIRECTORY, OPTIONS, environment(self.disk, self.seed))

    def change(self, count: int, size: int, *, large: int = 0) -> None:
        """A transaction that puts and removes."""
        self.before = dict(self.state)
        txn = self.store.engine.begin()
        for number in range(count):
            key = b"key %04d" % self.random.randrange(400)
            self.touched.add(key)
            if self.random.random() < 0.3:
                txn.delete(key)
                self.state.pop(key, None)
                continue
            length = large if number < 1 and large else self.random.randrange(1, size)
            self.state[key] = self.random.randbytes(length)
            txn.put(key, self.state[key])
        self.state.setdefault(b"always", b"here")
        txn.put(b"always", self.state[b"always"])
        self.store.engine.write_now(txn)

    def checkpoint(self) -> None:
        self.earlier = self.disk.images()
        self.store.engine.checkpoint_now()
        self.touched = set()

    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    def specimen(self, name: str, *, clean: bool) -> Specimen:
        page_count = self.store.engine.slots[0].page_count
        before = self.before
        if clean:
            self.store.close()
            before = self.state  # The last group is a marker.
        images = self.disk.images()
        # The file is longer in advance: bytes that were never used need no trial each.
        pages = images[PAGES]
        assert pages is not None
        images[PAGES] = pages[: (page_count + 2) * OPTIONS.page_size_bytes]
        images = {path: data for path, data in images.items() if not path.endswith("LOCK")}
        return Specimen(
            name,
            images,
            self.earlier,
            self.state,
            before,
            map_store(images, DIRECTORY, self.touched),
        )


def specimens(seed: int) -> Iterator[Specimen]:
    """The stores that are damaged."""
    random = Random(seed)

    builder = _Builder(random)
    builder.change(20, 60)
    yield builder.specimen("one slot, everything in the log, closed", clean=True)

    builder = _Builder(random)
    for size in (60, 200, 100):
        builder.change(40, size, large=3000)
    builder.checkpoint()
    for _ in range(3):
        builder.change(15, 80)
    builder.checkpoint()
    builder.change(10, 50, large=2000)
    builder.checkpoint()
    yield builder.specimen("large values, free pages, checkpointed and closed", clean=True)

    builder = _Builder(random)
    builder.change(40, 150, large=4000)
    builder.checkpoint()
    builder.change(5, 30)
    builder.checkpoint()
    for _ in range(6):
        builder.change(6, 120, large=2500)
    yield builder.specimen("several segments behind the checkpoint, killed", clean=False)

    builder = _Builder(random)
    builder.change(30, 100)
    builder.checkpoint()
    for _ in range(3):
        builder.change(4, 60, large=1500)
        builder.reopen()
    builder.checkpoint()
    builder.change(4, 60, large=1500)
    builder.reopen()
    builder.change(3, 60)
    yield builder.specimen("opened several times, killed", clean=False)


# -- one trial ------------------------------------------------------------------------------------


def attempt(images: Images, seed: int) -> Outcome:
    """Open a store, read everything, check it."""
    outcome = Outcome()
    disk = MemoryDisk(images)
    try:
        store = open_engine(DIRECTORY, OPTIONS, environment(disk, seed), create=False)
    except CorruptionError as error:
        outcome.error = error
        after = disk.images()
        outcome.untouched = all(after.get(path) == data for path, data in images.items())
        return outcome
    except Exception as error:
        outcome.crash = error
        return outcome
    outcome.opened = True
    outcome.rebuilt = store.report.free_space_rebuilt
    outcome.torn = store.report.torn_tail is not None
    try:
        try:
            outcome.contents = dict(store.engine.read().scan(b"", None))
        except CorruptionError as error:
            outcome.error = error
        report = check_engine(store.engine)
        outcome.check_errors, outcome.warnings = report.errors, report.warnings
    except Exception as error:
        outcome.crash = error
    finally:
        store.close()
    return outcome


def judge(specimen: Specimen, span: Span, offset: int, outcome: Outcome) -> str | None:
    """What is wrong with an outcome, given what the damaged byte is for; None where nothing."""
    if outcome.crash is not None:
        return f"{type(outcome.crash).__name__}: {outcome.crash}"
    if span.use is Use.PAGE:
        return _judge_page(span, outcome)
    if span.use is Use.LOG:
        return _judge_log(span, offset, outcome)
    if outcome.error is not None or outcome.check_errors:
        return f"refused without need: {outcome.error or outcome.check_errors[0]}"
    expected = specimen.before_last if span.use is Use.TAIL else specimen.contents
    if outcome.contents != expected:
        return "a wrong answer, and nobody noticed"
    seen = {
        Use.SLOT: bool(outcome.warnings),
        Use.LIST: outcome.rebuilt,
        Use.TAIL: outcome.torn,
        Use.BEHIND: outcome.torn,
    }
    for use, found in seen.items():
        wanted = span.use is use or (use in (Use.TAIL, Use.BEHIND) and seen.get(span.use, False))
        if found and not wanted and use is not Use.BEHIND:
            return f"noticed ({use.value}), but nothing uses this byte"
    if span.use in seen and not seen[span.use]:
        return "not noticed"
    return None


def _judge_page(span: Span, outcome: Outcome) -> str | None:
    error = outcome.error
    if error is None:
        return "not noticed by reading"
    if (error.details.get("file"), error.details.get("page")) != (PAGES, span.page):
        return f"the error names another place: {error.details}"
    if outcome.opened and not any(f"age {span.page} " in each for each in outcome.check_errors):
        return f"not noticed by the check: {outcome.check_errors[:2]}"
    return None


def _judge_log(span: Span, offset: int, outcome: Outcome) -> str | None:
    error = outcome.error
    if error is None:
        return "not noticed"
    if outcome.opened or not outcome.untouched:
        return "noticed, but not before something was changed"
    found = error.details.get("offset", -1)
    if error.details.get("file") != span.path or not 0 <= found <= offset:
        return f"the error names another place: {error.details}"
    return None


# -- all trials -----------------------------------------------------------------------------------

Trial = tuple[Span, int, bytes]
"""Where, from which byte on, and what is there instead."""


def flips(specimen: Specimen, random: Random, every_byte: bool) -> Iterator[Trial]:
    """One byte after the other, each changed in some way."""
    for path, data in specimen.images.items():
        if data is None or not path.startswith((PAGES, f"{DIRECTORY}/log/")):
            continue
        used = sorted((s for s in specimen.spans if s.path == path), key=lambda s: s.begin)
        at = 0
        parts: list[Span] = []
        for span in used:
            parts += [Span(path, at, span.begin, Use.UNUSED), span]
            at = span.end
        parts.append(Span(path, at, len(data), Use.UNUSED))
        for span in parts:
            for offset in _offsets(span, random, every_byte and not path.endswith(".spare")):
                yield span, offset, bytes([data[offset] ^ random.randrange(1, 256)])


def _offsets(span: Span, random: Random, every_byte: bool) -> Sequence[int]:
    everything = range(span.begin, span.end)
    if every_byte:
        return everything
    every = SAMPLE_HEAD_EVERY if span.head else SAMPLE_BODY_EVERY
    if span.use is Use.UNUSED:
        every = SAMPLE_UNUSED_EVERY
    some = random.sample(everything, min(len(everything), -(-len(everything) // every)))
    # The first bytes of a header are its fields: all of them.
    fields = range(span.begin, min(span.end, span.begin + 24)) if span.head else ()
    return sorted({*some, *fields})


def misplaced(specimen: Specimen, random: Random) -> Iterator[Trial]:
    """Writes of whole pages, slots and log blocks that were lost, or landed elsewhere."""
    data = specimen.images[PAGES]
    old = specimen.earlier.get(PAGES)
    assert data is not None
    size = OPTIONS.page_size_bytes
    for span in specimen.spans:
        if not span.head or span.use not in (Use.PAGE, Use.LIST):
            continue
        begin = span.begin
        now = data[begin : begin + size]
        others = [random.randrange(8, len(data) // size) * size for _ in range(3)]
        contents = [data[at : at + size] for at in others]
        if old is not None and len(old) >= begin + size:
            contents.append(old[begin : begin + size])
        yield from ((span, begin, other) for other in contents if other != now)
    blocks = [s for s in specimen.spans if s.use in (Use.LOG, Use.TAIL) and s.begin % 4096 == 0]
    for span in blocks:
        image = specimen.images[span.path]
        assert image is not None
        now = image[span.begin : span.begin + 4096]
        other = random.choice(blocks)
        source = specimen.images[other.path]
        assert source is not None
        if other is not span:
            yield span, span.begin, source[other.begin : other.begin + 4096]
        if span.use is Use.LOG:
            yield span, span.begin, bytes(len(now))


Progress = Callable[[str, int], None]
"""Told now and then: the specimen, and how many trials there were."""


def run(seed: int, *, every_byte: bool = True, progress: Progress | None = None) -> RotResult:
    """Damage the stores of ``seed``, byte by byte.

    Args:
        seed: decides about the stores and about what each byte is changed to.
        every_byte: else headers and a sample of the rest.
        progress: told every 500 trials.
    """
    began = time.process_time()
    result = RotResult(seed)
    random = Random(seed ^ 0x5EED)
    for specimen in specimens(seed):
        _begin(specimen, result)
        for trials in (flips(specimen, random, every_byte), misplaced(specimen, random)):
            for span, offset, data in trials:
                _try(specimen, span, offset, data, result)
                if progress is not None and result.trials % 500 == 0:
                    progress(specimen.name, result.trials)
                if len(result.failures) >= FAILURES_MAX:
                    result.seconds = time.process_time() - began
                    return result
    result.seconds = time.process_time() - began
    return result


def _begin(specimen: Specimen, result: RotResult) -> None:
    """A specimen is whole before it is damaged."""
    outcome = attempt(specimen.images, result.seed)
    wrong = judge(specimen, Span(PAGES, 0, 0, Use.UNUSED), 0, outcome)
    if wrong is not None:
        result.failures.append(f"seed {result.seed}, {specimen.name}, undamaged: {wrong}")


def _try(specimen: Specimen, span: Span, offset: int, data: bytes, result: RotResult) -> None:
    image = specimen.images[span.path]
    assert image is not None
    damaged = image[:offset] + data + image[offset + len(data) :]
    outcome = attempt({**specimen.images, span.path: damaged}, result.seed)
    result.trials += 1
    result.by_use[span.use.name.lower()] += 1
    wrong = judge(specimen, span, offset, outcome)
    if wrong is not None:
        what = data.hex() if len(data) < 9 else f"{len(data)} bytes"
        result.failures.append(
            f"seed {result.seed}, {specimen.name}: {span.path} byte {offset} ({span.use.name}, "
            f"page {span.page}) changed to {what}: {wrong}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bitrot")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--sample", action="store_true", help="headers and a sample only")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)

    def show(name: str, trials: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{trials:,} {name[:60]:60}", end="", file=sys.stderr, flush=True)

    result = run(seed, every_byte=not given.sample, progress=show)
    for failure in result.failures:
        print(failure)
    uses = ", ".join(f"{name} {count:,}" for name, count in sorted(result.by_use.items()))
    print(f"{result.trials:,} trials in {result.seconds:.0f} s: {uses}")
    print("no failures" if result.ok else f"{len(result.failures)} failures")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
