"""The part of the database that answers ``admin``."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from actors.embedded import in_thread
from treestore.engine.check import Books, check_state
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import ReadTransaction
from treestore.model.admin import CheckResult, CompactResult, Health, SnapshotInfo, Stats

if TYPE_CHECKING:
    from actors.database import Database

DISK_FREE_BYTES_WARN = 64 << 20


class AdminPart:
    """Implements ``treestore.stores.admin.AdminHost`` for `Database`."""

    @property
    def _db(self) -> Database:
        return cast("Database", self)

    async def admin_health(self) -> Health:
        """See ``admin.health``."""
        await trio.lowlevel.checkpoint()
        db = self._db
        engine = db.engine
        problems: list[str] = []
        if engine.failed is not None:
            problems.append(engine.read_only().message)
        free = engine.environment.disk.free_bytes(engine.pages.file.path)
        if free < DISK_FREE_BYTES_WARN:
            problems.append(f"Only {free} bytes are left on the disk.")
        checkpoints = db.checkpointer.statistics()
        if checkpoints.last_error is not None:
            problems.append(f"The last checkpoint failed: {checkpoints.last_error}")
        if db.writer.statistics().stalled:
            problems.append("Writers wait for a checkpoint, since the log is full.")
        if db.archiver is not None:
            problems += db.archiver.problems()
        problems += db.scrubber.problems()
        if db.indexer is not None and db.indexer.problem is not None:
            problems.append(f"The search index is missing or incomplete: {db.indexer.problem}")
        problems += _namespace_problems(db)
        actors: dict[str, str] = {"writer": "ended" if db.writer.stopped.is_set() else "running"}
        for name, status in db.supervisor.actors.items() if db.supervisor else ():
            actors[name] = "running" if status.running else "restarting"
            if status.restarts and not status.running:
                problems.append(f"The {name} crashed: {status.last_error}")
        db.lease_keeper.advance()
        problems += [
            f"A snapshot of {lease.owner} is open for {lease.age_s:.0f} s: the pages that it needs "
            "cannot be used again. admin.snapshots shows how many."
            for lease in engine.snapshots()
            if db.lease_keeper.is_soft(lease)
        ]
        log = engine.log.statistics()
        writable = engine.failed is None and actors["writer"] == "running"
        status_word = "ok" if not problems else "degraded" if writable else "read_only"
        last_at = checkpoints.last_at
        return Health(
            status=status_word,
            problems=tuple(problems),
            writable=writable,
            log_size_bytes=log.live_bytes,
            log_size_bytes_max=engine.options.log_size_bytes_max,
            disk_free_bytes=free,
            checkpoint_age_s=None
            if last_at is None
            else max(0.0, engine.now().timestamp() - last_at),
            actors=actors,
        )

    async def admin_stats(self) -> Stats:
        """See ``admin.stats``."""
        from treestore.stores.documents.counting import count_documents

        db, engine = self._db, self._db.engine
        policies, documents, nodes = await in_thread(db, None, count_documents, raw=False)
        log, cache = engine.log.statistics(), engine.pages.cache.statistics()
        writer, checkpoints = db.writer.statistics(), db.checkpointer.statistics()
        archive = None if db.archiver is None else db.archiver.statistics()
        scrubs = db.scrubber.statistics()
        snapshots = engine.snapshots()
        db.lease_keeper.advance()
        stats = Stats(
            database_uuid=str(uuid.UUID(bytes=engine.identity.database_uuid)),
            timeline=engine.identity.timeline,
            commit_number=engine.durable.number,
            lsn=engine.durable.position.lsn,
            keys=engine.durable.count,
            policies=policies,
            documents=documents,
            nodes=nodes,
            page_size_bytes=engine.pages.shape.page_size,
            pages=engine.free_space.page_count,
            pages_free=engine.free_space.free_pages(),
            pages_retired=engine.free_space.retired_pages(),
            page_file_size_bytes=engine.pages.file.size(),
            dirty_pages=engine.dirty_pages,
            log_size_bytes=log.live_bytes,
            log_segments=log.segments,
            log_appended_bytes=log.appended_bytes,
            log_syncs=log.syncs,
            log_sync_s_last=log.sync_ns_last / 1e9,
            cache_used_bytes=cache.used_bytes,
            cache_budget_bytes=cache.budget_bytes,
            cache_hit_rate=cache.hit_rate,
            cache_lookups=cache.lookups,
            cache_misses=cache.misses,
            cache_evictions=cache.evictions,
            checkpoints=checkpoints.checkpoints,
            checkpoint_failures=checkpoints.failures,
            checkpoint_duration_s_last=(
                None if checkpoints.last is None else checkpoints.last.duration_s
            ),
            commands=writer.commands,
            commands_failed=writer.failed_commands,
            groups=writer.groups,
            transactions=writer.transactions,
            group_size_last=writer.group_size_last,
            mailbox_waiting=writer.waiting,
            log_stalls=writer.stalls,
            snapshots=len(snapshots),
            snapshot_oldest_age_s=(max(lease.age_s for lease in snapshots) if snapshots else None),
            snapshots_evicted=db.lease_keeper.evictions,
            compactions=db.compactor.compactions,
            compaction_running=db.compactor.running,
            compaction_pages_moved=db.compactor.pages_moved,
            uptime_s=trio.current_time() - db.opened_at,
            archived_lsn=None if archive is None else archive.archived_lsn,
            archived_pieces=0 if archive is None else archive.pieces,
            archived_size_bytes=0 if archive is None else archive.size_bytes,
            archive_failures=0 if archive is None else archive.failures,
            scrub_passes=scrubs.passes,
            scrub_pages_verified=scrubs.pages,
            scrub_bytes_verified=scrubs.bytes,
            scrub_errors=scrubs.errors,
            scrub_finished_at=scrubs.finished_at,
            scrub_bytes_per_s=scrubs.bytes_per_s,
            **await self._search_stats(),
        )
        return self._with_transactions(stats)

    def _with_transactions(self, stats: Stats) -> Stats:
        transactions = self._db.transactions
        return attrs.evolve(
            stats,
            transactions_open=transactions.open,
            transactions_committed=transactions.committed,
            transaction_conflicts=transactions.conflicts,
            transactions_expired=transactions.expired,
        )

    async def _search_stats(self) -> dict[str, Any]:
        indexer = self._db.indexer
        if indexer is None:
            return {}
        namespaces = _namespace_stats(self._db)
        its = await self._db.threads.run(indexer.statistics)
        return {
            **namespaces,
            "search_nodes": its.rows,
            "search_lsn": its.lsn,
            "search_lag_records": its.lag_records,
            "search_size_bytes": its.size_bytes,
            "search_commits": its.commits,
            "search_nodes_indexed": its.nodes_indexed,
            "search_rebuilds": its.rebuilds,
            "search_rebuilding": its.progress.running,
            "search_rebuild_nodes": its.progress.nodes,
            "search_rebuild_nodes_total": its.progress.nodes_total,
            "search_rebuild_documents": its.progress.documents,
            "search_rebuild_documents_total": its.progress.documents_total,
        }

    async def admin_checkpoint(self) -> bool:
        """See ``admin.checkpoint``."""
        return await self._db.checkpointer.checkpoint()

    async def admin_snapshots(self) -> list[SnapshotInfo]:
        """See ``admin.snapshots``."""
        db = self._db
        pinned = await db.lease_keeper.count()
        db.lease_keeper.advance()
        page_size = db.engine.pages.shape.page_size

        def info(lease: Snapshot) -> SnapshotInfo:
            state = "soft" if db.lease_keeper.is_soft(lease) else "ok"
            return SnapshotInfo(
                id=lease.id,
                owner=lease.owner,
                opened_at=lease.opened_at,
                age_s=lease.age_s,
                number=lease.number,
                pinned_bytes=pinned.of(lease.number) * page_size,
                reads_in_flight=lease.reads,
                state="hard" if lease.evicted else state,
            )

        return [info(lease) for lease in db.engine.snapshots()]

    async def admin_compact(self) -> CompactResult:
        """See ``admin.compact``."""
        return await self._db.compactor.compact()

    async def admin_check(self, *, search: bool = False) -> CheckResult:
        """See ``admin.check``."""
        result = await self._check_store()
        if not search or self._db.indexer is None:
            return result
        warnings = await self._db.indexer.check()
        return attrs.evolve(result, warnings=(*result.warnings, *warnings))

    async def _check_store(self) -> CheckResult:
        """Of the newest durable state, while writers and readers go on."""
        from treestore.stores.collections.check import check_collections
        from treestore.stores.documents.check import check_documents
        from treestore.stores.metadata.check import check_metadata
        from treestore.stores.namespaces.check import check_namespaces
        from treestore.stores.prompts.check import check_prompts
        from treestore.stores.security.apikeys import check_keys
        from treestore.stores.security.audit import check_audit

        db = self._db
        async with db.checkpointer.paused():
            # After a checkpoint that failed, what is in memory names pages that may never have been
            # written: they would look damaged, though nothing of the store is.
            db.engine.pages.ensure_writable()
            # Between checkpoints no page is written, so a copy of the books stays true.
            state, books = db.engine.durable, Books.of(db.engine)

            def check(txn: ReadTransaction) -> CheckResult:
                report = check_state(db.engine.pages, state, books)
                errors = list(report.errors)
                if not errors:
                    errors += check_documents(txn)
                    errors += check_metadata(txn)
                    errors += check_prompts(txn)
                    errors += check_collections(txn)
                    errors += check_namespaces(txn)
                    errors += check_keys(txn)
                    errors += check_audit(txn)
                fields = {
                    field.name: getattr(report, field.name)
                    for field in attrs.fields(CheckResult)
                    if field.name not in ("ok", "errors", "warnings")
                }
                warnings = tuple(report.warnings)
                return CheckResult(ok=not errors, errors=tuple(errors), warnings=warnings, **fields)

            result: CheckResult = await in_thread(db, None, check, raw=False)
            return result


def _namespace_problems(db: Database) -> list[str]:
    problems: list[str] = []
    if db.segment_keeper is not None and db.segment_keeper.problem is not None:
        problems.append(
            f"Segments of namespaces cannot be kept up: {db.segment_keeper.problem} Searches are "
            "right, and slower."
        )
    if db.text_keeper is not None:
        problems += [
            f"The full-text index of namespace {number} cannot be made: {why}"
            for number, why in db.text_keeper.problems.items()
        ]
    return problems


def _namespace_stats(db: Database) -> dict[str, Any]:
    views, segments, texts = db.namespace_views, db.segment_keeper, db.text_keeper
    if views is None or segments is None or texts is None:
        return {}
    its = views.statistics()
    return {
        "namespaces_loaded": its.loaded,
        "namespaces_size_bytes": its.size_bytes,
        "namespace_queries": its.queries,
        "namespace_queries_from_tree": its.queries_from_tree,
        "namespace_cache_hit_rate": its.hit_rate,
        "namespace_segments": its.segments,
        "namespace_tail_rows": its.tail_rows,
        "namespace_seals": segments.counters.seals,
        "namespace_merges": segments.counters.merges,
        "namespace_rebuilds": segments.counters.rebuilds,
        "namespace_upkeep": segments.busy,
        "namespace_text_lag_rows": texts.counters.lag_rows,
        "namespace_text_rebuilds": texts.counters.rebuilds,
    }
