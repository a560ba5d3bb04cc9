"""Full-text search: languages, queries, an index folder and snippets, for any kind of rows.

Synchronous. Knows neither documents nor transactions (``treestore.stores`` builds on it).
``docs/search.md`` is the design.
"""
