"""A sampled profile of the processor time of all threads, as a page of HTML.

Every few milliseconds a thread looks at the stacks of the others and asks the system how much
processor time each has used since (Linux: ``/proc``). A stack weighs what its thread used: threads
that wait weigh nothing, and code that runs without the interpreter's lock counts as it should.
Nothing is put into the code that runs, so that it is as fast as without, but for the sampler's own
share of about one per cent. Where the system does not tell, each stack weighs the time between
two samples.
"""

from __future__ import annotations

import html
import math
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import attrs
import trio

from actors.observability.tasks import place_of

INTERVAL_S = 0.005
SECONDS_MAX = 60.0
DEPTH_MAX = 100
SHARE_MIN = 0.001
"""Calls below this share of the whole are left out of the page."""


@attrs.define
class Call:
    """A function in the tree of calls.

    Attributes:
        seconds: of processor time, in it and what it called.
        own_s: in itself.
    """

    name: str
    seconds: float = 0.0
    own_s: float = 0.0
    calls: dict[str, Call] = attrs.field(factory=dict)

    def to(self, name: str) -> Call:
        """What it called by that name."""
        call = self.calls.get(name)
        if call is None:
            call = self.calls[name] = Call(name)
        return call


@attrs.define
class Profile:
    """What was sampled."""

    root: Call
    wall_s: float = 0.0
    samples: int = 0
    exact: bool = True
    """Whether weights are processor time; else the time between samples."""


class Sampler:
    """Samples until `stop`; `run` belongs to a thread of its own."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._used_ns: dict[int, int] = {}
        self.profile = Profile(Call("all threads"))

    def stop(self) -> None:
        """End `run` soon. Any thread."""
        self._stopped.set()

    def run(self, seconds: float) -> Profile:
        """Sample for so long, or until `stop`."""
        own, profile = threading.get_ident(), self.profile
        began = last = time.perf_counter()
        self._sample(own, 0.0)
        while not self._stopped.wait(self._interval_s):
            now = time.perf_counter()
            self._sample(own, now - last)
            last = now
            profile.samples += 1
            if now - began >= seconds:
                break
        profile.wall_s = time.perf_counter() - began
        return profile

    def _sample(self, own: int, elapsed_s: float) -> None:
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            thread = threads.get(ident)
            if ident == own or thread is None or thread.native_id is None:
                continue
            weight_s = self._weight(thread.native_id, elapsed_s)
            if weight_s > 0.0:
                self._add(thread.name, frame, weight_s)

    def _weight(self, native_id: int, elapsed_s: float) -> float:
        used_ns = processor_time_ns(native_id)
        if used_ns is None:
            self.profile.exact = False
            return elapsed_s
        before_ns = self._used_ns.get(native_id, used_ns)
        self._used_ns[native_id] = used_ns
        return (used_ns - before_ns) / 1e9

    def _add(self, thread: str, frame: FrameType, weight_s: float) -> None:
        stack: list[FrameType] = []
        walk: FrameType | None = frame
        while walk is not None and len(stack) < DEPTH_MAX:
            stack.append(walk)
            walk = walk.f_back
        root = self.profile.root
        root.seconds += weight_s
        call = root.to(thread)
        call.seconds += weight_s
        for found in reversed(stack):
            call = call.to(place_of(found))
            call.seconds += weight_s
        call.own_s += weight_s


def processor_time_ns(native_id: int) -> int | None:
    """What a thread of this process has used so far; None where the system does not tell, or the
    thread has ended."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None


async def profile(seconds: float) -> Profile:
    """Sample this process for so many seconds.

    Cancellation: the sampler ends by itself soon after.
    """
    sampler = Sampler()
    try:
        return await trio.to_thread.run_sync(sampler.run, seconds, abandon_on_cancel=True)
    finally:
        sampler.stop()


# --- the page --------------------------------------------------------------------------------

_STYLE = """
body{font:13px/1.5 ui-monospace,monospace;margin:1.5em;color:#222;background:#fff}
h1{font-size:1.2em}summary{cursor:pointer;white-space:nowrap}details{margin-left:1.2em}
details.leaf>summary{list-style:none;cursor:default;margin-left:1em}
td,th{padding:.1em .8em;text-align:right}td:last-child,th:last-child{text-align:left}
.bar{display:inline-block;height:.7em;background:#c0562f;margin-right:.5em;vertical-align:middle}
.share{display:inline-block;width:4.5em;text-align:right;margin-right:.5em}
.own{color:#888}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}}
"""


def as_html(found: Profile) -> bytes:
    """The profile as a page that needs nothing else: no scripts, no other files."""
    root = found.root
    what = "processor time" if found.exact else "time (this system does not tell processor time)"
    lines = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>TreeStore profile</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{root.seconds:.3f} s of {what} in {found.wall_s:.1f} s, {found.samples} samples</h1>",
        "<h2>Where the time is spent: in the function itself</h2>",
        "<table><tr><th>share<th>seconds<th>function</tr>",
    ]
    whole = root.seconds or math.inf
    for name, own_s in _hottest(root)[:25]:
        lines.append(f"<tr><td>{own_s / whole:.1%}<td>{own_s:.3f}<td>{html.escape(name)}</tr>")
    lines += ["</table>", "<h2>By caller</h2>", *_tree(root, whole), "</html>\n"]
    return "\n".join(lines).encode("utf-8", "replace")


def _hottest(root: Call) -> list[tuple[str, float]]:
    own: dict[str, float] = {}
    pending = [root]
    while pending:
        call = pending.pop()
        if call.own_s:
            own[call.name] = own.get(call.name, 0.0) + call.own_s
        pending.extend(call.calls.values())
    return sorted(own.items(), key=lambda item: -item[1])


def _tree(root: Call, whole: float) -> Iterator[str]:
    """Nested elements, without recursion: stacks are as deep as they are."""
    pending: list[tuple[Call, bool] | None] = [(root, True)]
    while pending:
        top = pending.pop()
        if top is None:
            yield "</details>"
            continue
        call, alone = top
        share = call.seconds / whole
        below = sorted(call.calls.values(), key=lambda call: call.seconds)
        below = [child for child in below if child.seconds / whole >= SHARE_MIN]
        # What carries most of its caller's time is unfolded: the way to where the time goes.
        attributes = (" open" if alone or share > 0.1 else "") + ("" if below else " class=leaf")
        own = f" <span class=own>self {call.own_s / whole:.1%}</span>" if call.own_s else ""
        yield (
            f"<details{attributes}><summary><span class=share>{share:.1%}</span>"
            f'<span class=bar style="width:{share * 12:.2f}em"></span>'
            f"{html.escape(call.name)}{own}</summary>"
        )
        pending.append(None)
        pending.extend((child, len(below) == 1) for child in below)
