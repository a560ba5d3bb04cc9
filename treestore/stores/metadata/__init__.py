"""The ``metadata`` service: what is known beside the documents. Layout: docs/metadata.md."""
