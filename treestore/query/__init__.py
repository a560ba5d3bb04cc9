"""The filter language: MongoDB's operators over JSON-like documents (docs/filters.md).

`compile` makes a `Filter` from the JSON that a user writes; `Filter.matches` is its predicate and
`Filter.expression` its normal form, which a planner looks at. Nothing here knows of stores.
"""

from treestore.query.filter import Filter, compile

__all__ = ["Filter", "compile"]
