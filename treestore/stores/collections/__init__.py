"""The ``collections`` service: JSON documents with secondary indexes (docs/collections.md)."""
