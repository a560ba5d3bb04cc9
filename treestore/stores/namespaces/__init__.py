"""Namespaces: documents found by vectors, words and filters. See docs/namespaces.md."""
