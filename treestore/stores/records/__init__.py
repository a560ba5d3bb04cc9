"""What stores of records in order of time have in common: ids, listings, checks, latencies."""
