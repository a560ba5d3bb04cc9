"""The view of a namespace: its rows in memory, kept up from the log, and the queries on it.

`docs/namespaces.md`, "The view", has the design and the invariants. Free of threads and tasks: the
keeper (`actors`) loads views, has them follow, seals and compacts; queries come on worker threads.
"""
