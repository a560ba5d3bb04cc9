"""The Cranfield collection: 1,400 abstracts on aeronautics, 225 questions, and which abstracts
people judged to answer them.

All judged pairs count as relevant, those coded -1 too. Questions are numbered in the order of the
file, as the judgements have it; the numbers in the file are others. An abstract begins with its
title, which is also a field of its own. Two abstracts have no text at all.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs


@attrs.frozen
class Abstract:
    """One document."""

    number: int
    title: str
    text: str


@attrs.frozen
class Question:
    """A question, and the numbers of the abstracts that answer it."""

    number: int
    text: str
    relevant: frozenset[int]


@attrs.frozen
class Collection:
    """All of them."""

    abstracts: list[Abstract]
    questions: list[Question]


def read_collection(folder: Path) -> Collection:
    """Read ``cran.all.1400``, ``cran.qry`` and ``cranqrel``."""
    abstracts = [
        Abstract(int(record.partition("\n")[0]), _field(record, "T"), _field(record, "W"))
        for record in _records(folder / "cran.all.1400")
    ]
    relevant: dict[int, set[int]] = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        question, abstract, *_ = line.split()
        relevant.setdefault(int(question), set()).add(int(abstract))
    questions = [
        Question(number, _field(record, "W"), frozenset(relevant[number]))
        for number, record in enumerate(_records(folder / "cran.qry"), 1)
    ]
    return Collection(abstracts, questions)


def _records(file: Path) -> list[str]:
    return re.split(r"^\.I ", file.read_text(), flags=re.MULTILINE)[1:]


def _field(record: str, name: str) -> str:
    """One field of a record, on one line."""
    found = re.search(rf"^\.{name}\n(.*?)(?=^\.[A-Z]\n|\Z)", record, re.DOTALL | re.MULTILINE)
    return "" if found is None else " ".join(found[1].split())
