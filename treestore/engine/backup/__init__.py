"""Backups of a running store, the archive of its log, and restoring from both.

``docs/backup.md`` has the layout, the invariants and what happens when things fail.
"""
