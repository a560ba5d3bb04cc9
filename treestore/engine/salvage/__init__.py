"""Reading what is left of a damaged store, and putting it into a new one.

Nothing here writes to the store that is read: files are opened read-only, and its lock is taken
only where its lock file is there already. `docs/repair.md` says what is recovered from where, and
why that never brings back what was deleted, unless it is asked to.

* `source` opens a damaged directory: its lock, page file, slots.
* `scan` goes over all pages of a page file, whoever refers to them.
* `walk` goes down a tree as far as checksums hold.
* `logmap` finds every whole group of a damaged log.
* `replay` applies such groups to keys that are wanted.
* `rebuild` puts it all together in a new directory.
"""
