"""Attributes of rows as columns, and what filters, orders and groups make of them.

Rows are ordinals, 0 to n - 1. A column has a dictionary of its different values and, for each row,
a code: so what a condition says is decided once for each different value, and a filter gives a
numpy array of one bool a row. Columns come in two forms with the same face: sealed (immutable, made
of named byte sections that can be mapped) and growing (a writer appends rows, readers on other
threads see a prefix). Nothing here knows of stores or files.
"""
