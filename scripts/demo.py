"""``make demo``: a tour of TreeStore, from an empty directory to the answers, and back.

Starts a server on a scratch directory and free ports, stores documents with the client, asks the
main questions, kills the server with SIGKILL, starts it again and finds everything there. Ends by
itself, leaves nothing running and no files. ``make demo FILE=yours.json`` tours your document.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, TimeoutExpired
from typing import IO, Any, TypeVar

import attrs
import trio
from rich.console import Console
from rich.text import Text

import treestore
from treestore.cli import logs
from treestore.cli.console import clean, output, plural
from treestore.cli.get import pages_of
from treestore.cli.ingest import Naming, ingest_files
from treestore.cli.program import guarded
from treestore.cli.tree import documents_table, drawn, label
from treestore.errors import InvalidArgument, Unavailable
from treestore.model.documents import Document, Node

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLE = CHECKOUT / "examples" / "travel-policy"
START_S_MAX = 60
STOP_S_MAX = 30
SHOWN_LINES = 12

T = TypeVar("T")


@attrs.define
class Server:
    """A server process."""

    process: trio.Process
    tcp: str
    http: str
    ready_ms: float

    async def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no goodbye."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """End it gracefully; its exit code."""
        self.process.terminate()
        with trio.move_on_after(STOP_S_MAX):
            return await self.process.wait()
        await self.kill()
        raise TimeoutExpired("treestore serve", STOP_S_MAX)


@asynccontextmanager
async def running_server(data: Path, log: IO[bytes]) -> AsyncGenerator[Server, None]:
    """A server on ``data`` and free ports; killed at the exit if it still runs."""
    ports = [argument for name in ("", "http-", "metrics-") for argument in (f"--{name}port", "0")]
    began = time.perf_counter()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "treestore.cli", "serve", "--json", "--data", str(data), *ports],
        stdout=PIPE,
        stderr=log,
        # The user's settings are for the user's server, not for this one.
        env={k: v for k, v in os.environ.items() if not k.startswith("TREESTORE_")},
    )
    try:
        assert process.stdout is not None
        line = b""
        with trio.move_on_after(START_S_MAX):
            while not line.endswith(b"\n"):
                part = await process.stdout.receive_some()
                if not part:
                    break
                line += part
        if not line.endswith(b"\n"):
            told = Path(log.name).read_text("utf-8", "replace").strip().splitlines()
            raise Unavailable(f"The server did not start: {told[-1] if told else 'no word'}")
        ready = json.loads(line)
        took_ms = (time.perf_counter() - began) * 1000
        yield Server(process, ready["tcp"], ready["http"], took_ms)
    finally:
        if process.returncode is None:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


class Tour:
    """Prints what is asked, what is answered, and how long that took."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def chapter(self, title: str) -> None:
        """A new part of the tour."""
        self.console.print()
        self.console.print(Text(title, style="bold underline"))

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self.console.print(Text(text, style=style))

    async def ask(self, call: str, answer: Awaitable[T]) -> T:
        """Print ``call``, the Python text of ``answer``, then await it."""
        began = time.perf_counter()
        result = await answer
        took_ms = (time.perf_counter() - began) * 1000
        self.console.print()
        self.console.print(
            Text.assemble((">>> ", "dim"), (call, "bold cyan"), (f"   {took_ms:.1f} ms", "dim"))
        )
        return result

    def nodes(self, nodes: list[Node]) -> None:
        """Nodes, one in a line."""
        self.lines([label(node) for node in nodes])

    def lines(self, lines: list[Text]) -> None:
        """Some lines, indented; the first ones only where there are many."""
        shown = lines if len(lines) <= SHOWN_LINES else lines[: SHOWN_LINES - 1]
        for line in shown:
            self.console.print(Text("    ") + line, no_wrap=True, overflow="ellipsis")
        if len(shown) < len(lines):
            self.say(f"    … and {len(lines) - len(shown)} more", "dim")


async def store_documents(tour: Tour, db: Any, file: Path | None) -> Document:
    """Store what the tour is about; the document it looks at."""
    errors_console = Console(stderr=True)
    if file is not None:
        jobs = [([file], Naming())]
    else:
        own = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
        jobs = [
            (
                [EXAMPLE / "2024-01-01.json"],
                Naming(
                    policy_id="travel-policy",
                    effective_from="2024-01-01",
                    effective_to="2025-06-30",
                ),
            ),
            (
                [EXAMPLE / "2025-07-01.json"],
                Naming(policy_id="travel-policy", effective_from="2025-07-01"),
            ),
            ([path for path in own if path.is_file()], Naming()),
        ]
    documents: list[Document] = []
    began = time.perf_counter()
    for files, names in jobs:
        for outcome in await ingest_files(db, files, names, console=errors_console):
            if outcome.document is None:
                raise InvalidArgument(f"{outcome.file}: {outcome.error}")
            documents.append(outcome.document)
    took_ms = (time.perf_counter() - began) * 1000
    nodes = sum(document.node_count for document in documents)
    stored = f"{plural(len(documents), 'document')} with {plural(nodes, 'node')}"
    tour.say(f"Stored {stored} in {took_ms:.0f} ms, each durable when `store` returned.")
    return documents[-1] if file is not None else documents[1]


async def ask_about_tree(tour: Tour, db: Any, document: Document) -> None:
    """The questions an agent asks while it finds its way through a document."""
    docs, policy = db.documents, document.policy_id
    known = {"version_id": document.version_id}
    tour.chapter("The tree")
    nodes = await tour.ask(
        f"await db.documents.get_subtree({policy!r}, max_depth=1, include_text=False)",
        docs.get_subtree(policy, max_depth=1, include_text=False, **known),
    )
    tree_nodes = nodes[: 3 * SHOWN_LINES]
    tour.console.print(drawn(document, tree_nodes), no_wrap=True, overflow="ellipsis")
    if len(nodes) > len(tree_nodes):
        tour.say(f"… and {len(nodes) - len(tree_nodes)} more", "dim")

    everything = await docs.get_subtree(policy, include_text=False, **known)
    inner = max(everything, key=lambda node: (len(node.child_ids), -node.depth))
    leaf = max(everything, key=lambda node: node.depth)
    children = await tour.ask(
        f"await db.documents.get_children({policy!r}, {inner.node_id!r})",
        docs.get_children(policy, inner.node_id, **known),
    )
    tour.nodes(children)
    path = await tour.ask(
        f"await db.documents.get_ancestor_path({policy!r}, {leaf.node_id!r})",
        docs.get_ancestor_path(policy, leaf.node_id, **known),
    )
    tour.lines([Text(" › ").join([Text(clean(node.title)) for node in path])])
    whole = await tour.ask(
        f"await db.documents.get_node({policy!r}, {leaf.node_id!r})",
        docs.get_node(policy, leaf.node_id, **known),
    )
    text = whole.text or whole.summary or "(the source gave no text)"
    tour.lines([Text(clean(line)) for line in text.strip().splitlines()])
    if any(node.page_start is not None for node in everything):
        found = await tour.ask(
            f"await db.documents.get_nodes_by_page({policy!r}, '1-3,7')",
            docs.get_nodes_by_page(policy, "1-3,7", include_text=False, **known),
        )
        tour.nodes(found)
    structure = await tour.ask(
        f"await db.documents.get_structure({policy!r}, include_text=False)",
        docs.get_structure(policy, include_text=False, **known),
    )
    encoded = json.dumps(structure, ensure_ascii=False)
    tour.lines([Text(clean(encoded[:90]) + ("…" if len(encoded) > 90 else ""))])


async def ask_about_versions(tour: Tour, db: Any) -> None:
    """One section in two versions: the one in effect, and the one before."""
    tour.chapter("Two versions of one section")
    for version in (None, "2024-01-01"):
        asked = "" if version is None else f", version_id={version!r}"
        node = await tour.ask(
            f"await db.documents.get_node('travel-policy', '0016'{asked})",
            db.documents.get_node("travel-policy", "0016", version_id=version),
        )
        tour.lines([Text(f"{node.version_id}  {node.title}, {pages_of(node)}: {node.text}")])


async def ask_health(tour: Tour, db: Any, server: Server) -> None:
    """How the server does."""
    tour.chapter("How the server does")
    stats = await tour.ask("await db.admin.stats()", db.admin.stats())
    tour.lines(
        [
            Text(f"{plural(stats.documents, 'document')}, {plural(stats.nodes, 'node')}, ")
            + Text(f"{plural(stats.keys, 'key')} in {plural(stats.pages, 'page')}, ")
            + Text(f"{plural(stats.transactions, 'transaction')} since the start, ")
            + Text(f"last sync {stats.log_sync_s_last * 1000:.1f} ms")
        ]
    )
    url = f"http://{server.http}/health"
    body = await tour.ask(f"GET {url}", trio.to_thread.run_sync(_fetch, url))
    tour.lines([Text(body)])


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode().strip())


async def survive(tour: Tour, data: Path, log: IO[bytes], before: list[Document]) -> None:
    """Start again on what the killed server left, and compare."""
    async with running_server(data, log) as server:
        tour.say(f"Started again: recovered and ready after {server.ready_ms:.0f} ms.")
        async with treestore.connect(server.tcp) as db:
            after = (await tour.ask("await db.documents.list()", db.documents.list())).items
            nodes = sum(document.node_count for document in after)
            tour.lines([Text(f"{plural(len(after), 'document')}, {plural(nodes, 'node')}")])
            value = await tour.ask("await db.kv.get(b'last words')", db.kv.get(b"last words"))
            tour.lines([Text(repr(value))])
            check = await tour.ask("await db.admin.check()", db.admin.check())
            tour.lines([Text(f"ok={check.ok}, {plural(check.keys, 'key')} verified")])
        if after != before or value != b"written just before the kill" or not check.ok:
            raise Unavailable("The server came back with other data than it had. This is a bug.")
        tour.say("Everything is there.", "bold green")
        code = await server.stop()
        tour.say(f"SIGTERM: stopped with exit code {code}.")


async def tour_of(file: Path | None, scratch: Path) -> None:
    """The whole tour."""
    tour = Tour(output())
    data = scratch / "data"
    with (scratch / "server.log").open("wb") as log:
        tour.chapter("A server")
        async with running_server(data, log) as server:
            tour.say(f"treestore serve --data {data}: ready after {server.ready_ms:.0f} ms")
            tour.say(f"TCP {server.tcp}, HTTP {server.http}")
            tour.say(f">>> async with treestore.connect({server.tcp!r}) as db:", "bold cyan")
            async with treestore.connect(server.tcp) as db:
                tour.chapter("Documents")
                document = await store_documents(tour, db, file)
                listing = await tour.ask("await db.documents.list()", db.documents.list())
                tour.console.print(documents_table(listing.items))
                await ask_about_tree(tour, db, document)
                if file is None:
                    await ask_about_versions(tour, db)
                await ask_health(tour, db, server)
                tour.chapter("kill -9")
                await tour.ask(
                    "await db.kv.put(b'last words', b'written just before the kill')",
                    db.kv.put(b"last words", b"written just before the kill"),
                )
                await server.kill()
                tour.say("The server was killed with SIGKILL right after that call returned.")
        await survive(tour, data, log, listing.items)
    tour.console.print()
    tour.say("That was the tour. README.md says how to use TreeStore from your own program.")


async def run(file: Path | None) -> int:
    """The tour in a scratch directory, ended early by SIGTERM or a hang-up."""
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="treestore-demo-") as scratch,
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals,
    ):
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal code
                async for number in signals:
                    code = 128 + number
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await tour_of(file, Path(scratch))
            nursery.cancel_scope.cancel()
    return code


def main(arguments: list[str]) -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="A tour of TreeStore.")
    parser.add_argument("file", nargs="?", type=Path, help="PageIndex JSON or Markdown")
    options = parser.parse_args(arguments)
    if options.file is not None and not options.file.is_file():
        raise InvalidArgument(f"There is no file {options.file}.")
    return trio.run(run, options.file)


if __name__ == "__main__":
    logs.configure("warning")
    sys.exit(guarded(lambda: main(sys.argv[1:])))
