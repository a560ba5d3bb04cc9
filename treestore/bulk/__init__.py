"""Bulk imports: many documents from a file or a stream into a namespace (docs/namespaces.md).

Runs where the source is, in the program that calls ``namespaces.bulk``: what is read goes to the
store in batches, each written in one transaction.
"""
