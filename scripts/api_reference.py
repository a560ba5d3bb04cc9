"""Writes ``docs/api.md`` from the operations' definitions: ``python -m scripts.api_reference``.

tests/test_api_reference.py fails when the page is not what this makes.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path

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

RESULTS = (
    *(Node, Document, PolicyVersion, NodeChange, FieldChange, Hit, Page),
    *(Health, Stats, CheckResult, SnapshotInfo, CompactResult),
    *(ApiKey, ApiKeyInfo, AuditEntry),
    *(BackupResult, BackupProgress, Change),
    *(ToolResult, ToolStats, Trajectory, TrajectoryStep, TrajectoryStats, NodeVisits),
    *(CrossReference, Contradiction, Evidence, Resolution, EntityMetadata),
    *(Prompt, PromptVersion, PromptUsage, PromptEffectiveness),
    *(EnrichedDocument, RelatedNode, RecordedCall, RecordedConflict),
    *(Namespace, NamespaceStatistics, NamespaceSchema, VectorSchema, AttributeSchema),
    *(FullTextSchema, NamespaceDocument, NamespaceHit, UpsertResult, PatchResult),
)


def signature_of(operation: Operation) -> str:
    """``name(parameters) → result`` as a caller sees it."""
    signature = inspect.signature(operation.function)
    skip = 0 if operation.kind == "prepared" else 1
    shown: list[str] = []
    for parameter in list(signature.parameters.values())[skip:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        text = f"{parameter.name}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        shown.append(text)
    result = str(operation.function.__annotations__.get("return", ""))
    if operation.kind == "prepared":
        result = re.sub(r"^Callable\[\[Write\], (.*)\]$", r"\1", result)
    elif operation.kind == "stream":
        result = re.sub(r"^Iterator\[list\[(.*)\]\]$", r"\1", result)
    elif operation.kind == "feed":
        result = re.sub(r"^FeedSource\[(.*)\]$", r"\1", result)
    return f"{operation.name}({', '.join(shown)}) → {result}"


def page() -> str:
    """The whole page."""
    for module in ("treestore.services", "treestore.stores.changes.service"):
        importlib.import_module(module)  # defines operations
    parts = [INTRODUCTION]
    service = ""
    for operation in sorted(OPERATIONS.values(), key=lambda one: one.name.split(".")[0]):
        group = operation.name.split(".")[0]
        if group != service:
            service = group
            parts.append(f"## `{service}`\n")
        text = inspect.cleandoc(operation.function.__doc__ or "")
        parts.append(
            f"### `{operation.name}`\n\n```\n"
            + "\n".join(textwrap.wrap(signature_of(operation), 96, subsequent_indent="    "))
            + f"\n```\n\n{KINDS[operation.kind]}\n\n```text\n{text}\n```\n"
        )
    parts.append("## Results\n")
    parts.extend(result_of(cls) for cls in RESULTS)
    return "\n".join(parts)


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
