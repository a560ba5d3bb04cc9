"""Changes: what the log's records say, in the words of the services."""
