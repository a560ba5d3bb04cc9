"""The measured systems: each module is run as a process by `scripts.bench.worker.Worker`."""
