"""Writes ``docs/api.md`` from the operations' definitions: ``python -m scripts.api_reference``.

tests/test_api_reference.py fails when the page is not what this makes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from treestore.model.admin import (
    BackupProgress,
    BackupResult,
    CheckResult,
    CompactResult,
    Health,
    SnapshotInfo,
    Stats,
)
from treestore.model.agents import RecordedCall, RecordedConflict
from treestore.model.bulk import BulkProgress, BulkReport, RejectedLine
from treestore.model.changes import Change
from treestore.model.documents import Document, Node
from treestore.model.metadata import (
    Contradiction,
    CrossReference,
    EntityMetadata,
    Evidence,
    NodeVisits,
    Resolution,
    ToolResult,
    ToolStats,
    Trajectory,
    TrajectoryStats,
    TrajectoryStep,
)
from treestore.model.namespaces import (
    AttributeSchema,
    FullTextSchema,
    Namespace,
    NamespaceDocument,
    NamespaceHit,
    NamespaceSchema,
    NamespaceStatistics,
    PatchResult,
    UpsertResult,
    VectorSchema,
)
from treestore.model.page import Page
from treestore.model.prompts import Prompt, PromptEffectiveness, PromptUsage, PromptVersion
from treestore.model.queries import EnrichedDocument, RelatedNode
from treestore.model.search import Hit
from treestore.model.security import ApiKey, ApiKeyInfo, AuditEntry
from treestore.model.versions import FieldChange, NodeChange, PolicyVersion
from treestore.stores.composite import COMPOSITES
from treestore.stores.operation import OPERATIONS, Operation

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"

INTRODUCTION = """\
# API reference

Made by `python -m scripts.api_reference` from the operations' own definitions.

The same calls work on what `treestore.open(directory)`, `treestore.connect(address)` and
`treestore.connect_sync(address)` give, and, as far as they only read, on `db.snapshot()`. All are
awaited, but for streams, which are iterated with `async for` (or `async with`, to let go of one
early); on the blocking client of `connect_sync` nothing is awaited, and it is `for` and `with`.
On the wire the method's
name is as below, parameters are a msgpack map by name, and what has a default may be left out;
`docs/protocol.md` has the rest. Errors are classes of `treestore.errors`, each with a stable
`code`.
"""

KINDS = {
    "query": "Reads one snapshot.",
    "awaited": "Reads one snapshot; may wait for an index.",
    "command": "Writes; durable when it returns.",
    "prepared": "Writes; durable when it returns.",
    "stream": "A stream: all its items are of one snapshot.",
    "feed": "A feed: items as they come to be, without an end.",
    "action": "Done by the running store.",
}

COMPOSITE = "Made of several of these, where its caller is."

RESULTS = (
    *(Node, Document, PolicyVersion, NodeChange, FieldChange, Hit, Page),
    *(Health, Stats, CheckResult, SnapshotInfo, CompactResult),
    *(ApiKey, ApiKeyInfo, AuditEntry),
    *(BackupResult, BackupProgress, Change, BulkReport, BulkProgress, RejectedLine),
    *(ToolResult, ToolStats, Trajectory, TrajectoryStep, TrajectoryStats, NodeVisits),
    *(CrossReference, Contradiction, Evidence, Resolution, EntityMetadata),
    *(Prompt, PromptVersion, PromptUsage, PromptEffectiveness),
    *(EnrichedDocument, RelatedNode, RecordedCall, RecordedConflict),
    *(Namespace, NamespaceStatistics, NamespaceSchema, VectorSchema, AttributeSchema),
    *(FullTextSchema, NamespaceDocument, NamespaceHit, UpsertResult, PatchResult),
)


def signature_of(operation: Operation) -> str:
    """``name(parameters) → result`` as a caller sees it."""
    shown = _parameters(operation.function, 0 if operation.kind == "prepared" else 1)
    result = str(operation.function.__annotations__.get("return", ""))
    if operation.kind == "prepared":
        result = re.sub(r"^Callable\[\[Write\], (.*)\]$", r"\1", result)
    elif operation.kind == "stream":
        result = re.sub(r"^Iterator\[list\[(.*)\]\]$", r"\1", result)
    elif operation.kind == "feed":
        result = re.sub(r"^FeedSource\[(.*)\]$", r"\1", result)
    return f"{operation.name}({', '.join(shown)}) → {result}"


def _parameters(function: Callable[..., Any], skip: int) -> list[str]:
    """A function's parameters, the first ones left out."""
    signature = inspect.signature(function)
    shown: list[str] = []
    for parameter in list(signature.parameters.values())[skip:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        text = f"{parameter.name}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        shown.append(text)
    return shown


def _entries() -> Iterator[tuple[str, str, str, str]]:
    """Name, signature, kind and text of everything that services offer, by service."""
    found = [
        (one.name, signature_of(one), KINDS[one.kind], one.function.__doc__)
        for one in OPERATIONS.values()
    ]
    for name, function in COMPOSITES.items():
        result = function.__annotations__["return"]
        signature = f"{name}({', '.join(_parameters(function, 1))}) → {result}"
        found.append((name, signature, COMPOSITE, function.__doc__))
    for name, signature, kind, text in sorted(found, key=lambda one: one[0].split(".")[0]):
        yield name, signature, kind, inspect.cleandoc(text or "")


def page() -> str:
    """The whole page."""
    for module in ("treestore.services", "treestore.stores.changes.service"):
        importlib.import_module(module)  # defines operations
    parts = [INTRODUCTION]
    service = ""
    for name, signature, kind, text in _entries():
        group = name.split(".")[0]
        if group != service:
            service = group
            parts.append(f"## `{service}`\n")
        parts.append(
            f"### `{name}`\n\n```\n"
            + "\n".join(textwrap.wrap(signature, 96, subsequent_indent="    "))
            + f"\n```\n\n{kind}\n\n```text\n{text}\n```\n"
        )
    parts.append("## Parameters\n\nTypes of parameters that have a name above.\n")
    parts.extend(f"### `{name}`\n\n```text\n{text}\n```\n" for name, text in sorted(_aliases()))
    parts.append("## Results\n")
    parts.extend(result_of(cls) for cls in RESULTS)
    return "\n".join(parts)


def _aliases() -> set[tuple[str, str]]:
    """Names that signatures use for types, each with what it says of itself."""
    found: set[tuple[str, str]] = set()
    for function in (*(one.function for one in OPERATIONS.values()), *COMPOSITES.values()):
        shown = inspect.signature(function).parameters.values()
        for name in re.findall(r"\b[A-Z]\w+", " ".join(str(one.annotation) for one in shown)):
            text = _alias(name, function.__module__)
            if text is not None:
                found.add((name, text))
    return found


@cache
def _alias(name: str, module: str) -> str | None:
    """What is assigned to this name, in the module or in that which it is from."""
    path = importlib.import_module(module).__file__
    if path is None:
        return None
    statements = ast.parse(Path(path).read_text(encoding="utf-8")).body
    for statement, following in itertools.pairwise(statements):
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return _definition(value, following)
            case ast.ImportFrom(module=str(origin), names=names):
                if origin.startswith("treestore") and any(one.name == name for one in names):
                    return _alias(name, origin)
            case _:
                pass
    return None


def _definition(value: ast.expr, following: ast.stmt) -> str:
    """What a type is made of, and what is said below it."""
    match value:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[own, *_])):
            value = own
        case _:
            pass
    text = "\n".join(textwrap.wrap(ast.unparse(value), 96, subsequent_indent="    "))
    match following:
        case ast.Expr(value=ast.Constant(value=str(said))):
            text += "\n\n" + inspect.cleandoc(said)
        case _:
            pass
    return text


def _type_name(annotation: object) -> str:
    """As the source has it, also where somebody resolved the class's annotations meanwhile."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return re.sub(r"\b(typing|datetime)\.|~", "", str(annotation))


def result_of(cls: type) -> str:
    """A class of results: its fields and what it says of itself."""
    fields = [f"{field.name}: {_type_name(field.type)}" for field in attrs.fields(cls)]
    text = inspect.cleandoc(cls.__doc__ or "")
    listed = "\n".join(fields)
    return f"### `{cls.__name__}`\n\n```\n{listed}\n```\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
