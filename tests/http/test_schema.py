"""The OpenAPI document, its page, and what Schemathesis makes of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.http.conftest import Edge, edge_over, operations
from treestore.errors import AlreadyExists, TreeStoreError

EXCLUDED_CHECKS = (
    # What fits a schema may still be refused: a policy that does not exist, a period that ends
    # before it begins. (Not excluded: that nothing which does not fit is accepted.)
    "positive_data_acceptance,"
    # What was deleted is there again where `keep_stored` came between, and a DELETE of all
    # documents' address with a filter has not deleted each of them.
    "use_after_free"
)
EXCLUDED_PATHS = (
    # Feeds have no end, a backup makes directories where the body says, and Schemathesis cannot
    # write lines of JSON.
    "watch|backup|/bulk$"
)


async def test_every_operation_is_in_the_document(edge: Edge) -> None:
    document = await edge.ask("GET", "/schema", 200)
    paths = document["paths"]
    for name, operation in edge.operations.items():
        told = paths[f"/v1/ops/{name}"]["post"]
        assert told["operationId"] == name
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert schema["properties"].keys() == set(operation.parameters.__struct_fields__)
    ids = [told["operationId"] for each in paths.values() for told in each.values()]
    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/([^\"]+)", text):
        assert name in document["components"]["schemas"]
    assert (await edge.ask("GET", "/schema/openapi.json", 200)) == document


class _Addresses(HTMLParser):
    """Whatever a page would load or link to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "action")]


async def test_the_page_needs_no_network(edge: Edge) -> None:
    answer = await edge.http.get("/schema", headers={"accept": "text/html,*/*;q=0.8"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = _Addresses()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert all(address.startswith(("#", "/schema")) for address in page.found)
    for name in edge.operations:
        assert f'id="{name}"' in answer.text


CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def people(number: int) -> dict[str, Any]:
    return {"_id": f"d{number}", "age": number, "tags": ["a", number], "home": {"city": "Tartu"}}


def forest() -> list[dict[str, Any]]:
    nodes = [{"node_id": f"n{n}", "title": f"Title {n}", "text": "word " * n} for n in range(2, 5)]
    return [{"node_id": "n0", "title": "All", "nodes": nodes}, {"node_id": "n1", "title": "B"}]


async def keep_stored(db: Any) -> None:
    """Store what `CONFIGURATION` names, and again what requests have removed since."""
    await db.metadata.store_tool_result("case", "search", {"hits": 3}, policy_id="travel")
    await db.metadata.store_trajectory("case", [{"thought": "t", "node_ids": ["n0"]}])
    await db.metadata.store_cross_reference("travel", "n0", "leave", "n1", "see")
    evidence = [{"policy_id": "leave", "node_id": "n1"}]
    await db.metadata.store_contradiction("case", "n0", evidence)
    await db.prompts.store("prompt", "Answer {question}", variables=["question"])
    while True:
        for name in ("people", "plants"):
            with suppress(AlreadyExists):
                await db.collections.create(name, indexes=["age", "tags"])
            for number in range(4):
                with suppress(TreeStoreError):  # Indexes of theirs may not take it.
                    await db.collections.replace(name, f"d{number}", people(number), upsert=True)
        for policy in ("travel", "leave"):
            for number, version in enumerate(("v1", "v2")):
                with suppress(TreeStoreError):  # Versions of theirs may be in the way.
                    await db.documents.store(
                        *(policy, version, {"structure": forest()}),
                        effective_from=f"202{number}-01-01",
                    )
        await trio.sleep(1)


@contextmanager
def served(directory: Path) -> Generator[str]:
    """The address of an edge that runs on a thread."""
    address: list[str] = []
    ready = threading.Event()
    stop: list[Any] = []

    async def main() -> None:
        async with edge_over(directory, patience_s=4000) as edge:
            stopped = trio.Event()
            stop.extend((trio.lowlevel.current_trio_token(), stopped))
            address.append(f"http://127.0.0.1:{edge.port.port}")
            ready.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_stored, edge.database)
                await stopped.wait()
                nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(20)
    try:
        yield address[0]
    finally:
        token, stopped = stop
        trio.from_thread.run_sync(stopped.set, trio_token=token)
        thread.join(20)


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All its checks but two. TREESTORE_HYPOTHESIS_PROFILE=long: over and over for 50 minutes."""
    profile = os.environ.get("TREESTORE_HYPOTHESIS_PROFILE") or "default"
    examples = {"default": 3, "ci": 10, "long": 40}[profile]
    # Passes of some examples each, until the time is spent: one long pass, cut short by a busy
    # machine, would end without telling what it found.
    budget = ("--max-time", "3000") if profile == "long" else ()
    with served(tmp_path / "data") as address:
        run = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "--config-file"),
                *(str(CONFIGURATION), "run", "--no-color", *budget),
                *(f"{address}/schema/openapi.json", "--checks", "all"),
                *("--exclude-checks", EXCLUDED_CHECKS, "--exclude-path-regex", EXCLUDED_PATHS),
                *("--phases", "coverage,fuzzing,stateful", "--max-examples", str(examples)),
                *("--seed", str(request.config.option.hypothesis_seed)),
                *("--request-timeout", "20"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300 if profile == "default" else 3900,
        )
    assert run.returncode == 0, run.stdout
    tested = re.search(r"Tested: (\d+)", run.stdout)
    assert tested is not None
    assert int(tested[1]) > len(operations())
