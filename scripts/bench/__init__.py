"""The side-by-side benchmark: TreeStore and what else one might have taken.

`docs/benchmarks.md` says what each row measures and how. ``python -m scripts.bench`` runs it.

    main         options, order of the rows, outputs
    rows         the rows and their targets
    measure      repetitions A B A B ..., medians, percentiles, verdicts
    worker       a measured system's client, in a process of its own
    systems/     one module for each system that is measured
    servers/     the servers that are started for the time of a run
"""
