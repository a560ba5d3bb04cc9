"""Decision tables: what was found decides what is done, as data.

A table has facts, each a question with the answer yes or no, and rows. A row says which answers it
asks for (others do not matter to it), what then happens, and the sentence for whoever reads it.
Every combination of answers matches exactly one row; `tests/engine/test_decisions.py` tries them
all, and reaches each row with a real directory.

Facts are found one after the other, and some only cost something. So `Table.decide` may be asked
before all are known: it answers as soon as what is known matches a row, whatever the rest is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from itertools import product

import attrs

from treestore.errors import TreeStoreError


class Outcome(enum.Enum):
    """What happens."""

    REFUSE = "refuse"
    CREATE = "create"
    OPEN = "open"
    CUT = "cut, and open"


@attrs.frozen
class Row:
    """One line of a table.

    Attributes:
        name: for reports, errors (``details["verdict"]``) and tests.
        when: the answers that it asks for.
        outcome: what happens.
        sentence: for the user; of a refusal a template for `refusal`.
        error: what is raised where the outcome is a refusal.
    """

    name: str
    when: Mapping[str, bool]
    outcome: Outcome
    sentence: str
    error: type[TreeStoreError] | None = None

    def matches(self, answers: Mapping[str, bool]) -> bool:
        """Whether all it asks for is known, and so."""
        return all(answers.get(fact) is wanted for fact, wanted in self.when.items())

    def refusal(self, details: Mapping[str, object], **words: object) -> TreeStoreError:
        """The error of a row that refuses.

        Args:
            details: for the error: file and offset, mostly.
            words: what the sentence leaves open.
        """
        assert self.error is not None
        return self.error(self.sentence.format(**words), **{**details, "verdict": self.name})


@attrs.frozen
class Table:
    """Facts (name and question) and rows."""

    facts: Mapping[str, str]
    rows: tuple[Row, ...]

    def decide(self, answers: Mapping[str, bool]) -> Row | None:
        """The row that what is known matches; None where more must be known."""
        found = [row for row in self.rows if row.matches(answers)]
        if len(found) > 1:
            raise AssertionError(f"{found[0].name} and {found[1].name} at once")
        return found[0] if found else None

    def decided(self, answers: Mapping[str, bool]) -> Row:
        """The row, once everything is known that matters."""
        row = self.decide(answers)
        assert row is not None
        return row

    def combinations(self) -> Iterator[dict[str, bool]]:
        """All combinations of answers."""
        for answers in product((False, True), repeat=len(self.facts)):
            yield dict(zip(self.facts, answers, strict=True))

    def markdown(self) -> str:
        """The table for a document."""
        names = list(self.facts)
        lines = [f"| verdict | {' | '.join(names)} | outcome |", "|---" * (len(names) + 2) + "|"]
        words = {True: "yes", False: "no", None: ""}
        for row in self.rows:
            cells = [words[row.when.get(name)] for name in names]
            error = f": {row.error.__name__}" if row.error else ""
            lines.append(f"| {row.name} | {' | '.join(cells)} | {row.outcome.value}{error} |")
        return "\n".join(lines)
