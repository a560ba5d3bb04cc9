"""Searching by nearness: exact distances, sealed segments with an index, and the tail.

A library of numpy, faiss and files. It knows nothing of namespaces, of the tree, or of any event
loop: it is called on worker threads, and every call into C lets the other threads run.
"""
