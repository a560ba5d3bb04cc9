"""Full text of namespaces: one tantivy index for each, over attributes that have analyzers of their
own. Rows are numbers that never change.

A library: it knows nothing of stores, of the tree, or of the event loop. ``docs/namespaces.md``
("Words") is the design; what is common with the search of documents is in ``treestore.search``.
"""
