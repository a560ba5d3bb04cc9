"""Chaos: damage on purpose, and a look at what comes of it."""
