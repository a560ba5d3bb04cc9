"""Versions of policies over time: periods, what was believed when, and what differs.

See docs/versions.md for meaning, layout and invariants. `layout` has the keys, `timeline` who rules
which days, `book` one policy's records with all their indexes; `changing`, `reading` and `diff` are
the operations.
"""
