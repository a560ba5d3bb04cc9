"""What can be seen of a running server: metrics, logs of requests, tasks, profiles, spans."""
