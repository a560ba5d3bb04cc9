"""Documents: trees of nodes, one for each version of a policy."""
