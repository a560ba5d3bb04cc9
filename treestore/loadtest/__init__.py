"""``treestore loadtest``: many users at once, each of whom knows what should be stored.

A server is put under a mixed load of collections over TCP or HTTP. Every user keeps a ledger of
what was acknowledged to it, holds each answer against it while the load is on, and afterwards all
that is stored is held against all ledgers: docs/loadtest.md. The modules:

=============  ==================================================================
`plan`         what is asked for: users, duration, mix
`content`      what a document holds at each of its revisions
`ledger`       what was written, and what may be found
`statistics`   calls, latencies, errors
`faces`        the same calls over TCP and HTTP (`http`)
`world`        what all users have in common
`user`         what one user does; `queries` and `money` are parts of that
`accounts`     transfers, and what accounts must come to
`run`          all users together
`verify`       what is stored against what should be
`report`       the outcome as data
`server`       a server of one's own
`session`      all of it, from the start of the server to the report
=============  ==================================================================
"""
