"""What columns of rows have in common, sealed or growing."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from treestore.query.expression import Expression
from treestore.search.columns.column import Column, Leaf, Plain
from treestore.search.columns.dictionary import Sorted
from treestore.search.columns.statistics import Estimate
from treestore.search.columns.values import Bools


class Columns(ABC):
    """The attributes of rows 0 to ``count`` - 1.

    Attributes:
        count: how many rows.
    """

    count: int

    @property
    @abstractmethod
    def names(self) -> frozenset[str]:
        """The attributes that there are columns of."""

    @abstractmethod
    def column(self, name: str) -> Column:
        """One column; one without any value where none was kept."""

    @abstractmethod
    def mask(self, leaf: Leaf) -> Bools:
        """For each row whether a condition on one path holds. Not to be changed."""

    @abstractmethod
    def estimate(self, expression: Expression) -> Estimate:
        """How many rows a filter lets through."""

    def absent(self) -> Column:
        """The column of an attribute that no row has."""
        return Plain(np.zeros(self.count, np.uint8), Sorted(()))
