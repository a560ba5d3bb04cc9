"""A real server finds rot in its files by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.integration.servers import Server
from treestore import connect
from treestore.engine.page import LEAF
from treestore.engine.realdisk import RealDisk
from treestore.engine.salvage.scan import scan_runs
from treestore.engine.salvage.source import open_source
from treestore.errors import Unavailable

pytestmark = pytest.mark.slow

PAGE_SIZE = 8192


async def test_rot_of_a_page_that_nobody_reads_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = Server.start(data, "--scrub-rate-mb", "1000", "--scrub-pause", "0.1")
    try:
        with trio.fail_after(60):
            async with connect(server.tcp) as db:
                for number in range(300):
                    await db.kv.put(b"%04d" % number, bytes(100))
                await db.admin.checkpoint()
                while (await db.admin.stats()).scrub_passes < 2:  # noqa: ASYNC110
                    await trio.sleep(0.05)
                assert (await db.admin.health()).status == "ok"
                file = RealDisk().open(str(data / "pages"))
                newest = max(
                    (run for run in scan_runs(file, PAGE_SIZE) if run.kind == LEAF),
                    key=lambda run: (run.born, run.size),
                )
                file.write_at(newest.page * PAGE_SIZE + 4000, [b"rot"])
                file.close()
                while (await db.admin.health()).status == "ok":  # noqa: ASYNC110
                    await trio.sleep(0.05)
                health = await db.admin.health()
                assert health.writable
                assert f"Page {newest.page} of {data}/pages" in health.problems[0]
                assert (await db.admin.stats()).scrub_errors
                # It is in use, so neither dump nor repair touches it.
                with pytest.raises(Unavailable):
                    open_source(RealDisk(), str(data))
        assert server.stop() == 0
    finally:
        server.kill()
