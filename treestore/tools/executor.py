"""Runs the tools for an agent, and records what it did.

A model names a tool and gives arguments; whatever it gives, the answer is a dict that JSON can say:
``{"success": True, …}``, or ``{"success": False, "error": "what to do about it", …}``. Every call,
the wrong ones too, is recorded in one transaction: as a tool result, and as a step of the case's
trajectory with the nodes that it visited.
"""

from __future__ import annotations

import json
import reprlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from treestore.errors import InvalidArgument, NotFound
from treestore.tools import judging_tools, reading_tools
from treestore.tools.context import Case, Outcome, ToolFailure, shortened, unicode_of
from treestore.tools.definitions import SCHEMAS, Style, tool_definitions
from treestore.tools.facts import CaseFacts
from treestore.tools.providers import LiteratureProvider
from treestore.tools.recording import Recorder, Step
from treestore.tools.schema import (
    Unusable,
    did_you_mean,
    find_problems,
    parse_arguments,
    with_defaults,
)

Tool = Callable[[Case, dict[str, Any]], Awaitable[Outcome]]

TOOLS: dict[str, Tool] = {
    "pi_search": reading_tools.pi_search,
    "facts_get": judging_tools.facts_get,
    "spans_tighten": reading_tools.spans_tighten,
    "policy_xref": reading_tools.policy_xref,
    "temporal_lookup": reading_tools.temporal_lookup,
    "confidence_score": judging_tools.confidence_score,
    "contradiction_detector": judging_tools.contradiction_detector,
    "pubmed_search": judging_tools.pubmed_search,
    "code_validator": judging_tools.code_validator,
    "finish": judging_tools.finish,
}

UNKNOWN = "unknown"
"""What a tool that does not exist is recorded as."""

THOUGHT_SIZE_MAX = 100_000
"""Characters of a thought that are recorded."""

UNUSABLE_SIZE_MAX = 500
"""Characters of arguments that are no JSON, in the record of the call."""


class ToolExecutor:
    """The tools of one case.

    Args:
        db: a database: ``treestore.open`` or ``treestore.connect`` (trio or asyncio), or a
            transaction of it. For ``treestore.connect_sync`` there is `BlockingToolExecutor`.
        case_id: the case under work; results, trajectory and contradictions are stored with it.
        policy_id: the policy that it is decided by.
        version_id: which version of the policy all tools read. None: the one in effect on
            ``as_of``, or today; looked up with the first call, then the same to the end.
        as_of: a day (date, datetime, ISO string), where no version is named.
        facts: the case bundle: a `CaseFacts`, or what one is made of.
        aliases: other names of facts, where ``facts`` is no `CaseFacts` yet.
        literature: the provider of ``pubmed_search``; None: the tool answers "not configured".
        record: False records nothing (contradictions neither).

    Raises:
        InvalidArgument: the case bundle is of no known form.
    """

    def __init__(
        self,
        db: Any,
        *,
        case_id: str,
        policy_id: str,
        version_id: str | None = None,
        as_of: date | datetime | str | None = None,
        facts: CaseFacts | Mapping[str, Any] | Iterable[Any] = (),
        aliases: Mapping[str, str] | None = None,
        literature: LiteratureProvider | None = None,
        record: bool = True,
    ) -> None:
        self._case = Case(
            db=db,
            case_id=case_id,
            policy_id=policy_id,
            version_id=version_id,
            as_of=as_of,
            facts=facts if isinstance(facts, CaseFacts) else CaseFacts(facts, aliases),
            literature=literature,
        )
        self._decision: dict[str, Any] | None = None
        self._recorder = Recorder(self._case, stores=record)

    @property
    def decision(self) -> dict[str, Any] | None:
        """What `finish` was called with; None before."""
        return self._decision

    @property
    def steps(self) -> list[Step]:
        """What was done so far, in order."""
        return list(self._recorder.steps)

    @property
    def trajectory_id(self) -> str | None:
        """Of the trajectory that the calls are recorded in; None before the first."""
        return self._recorder.trajectory_id

    @property
    def version_id(self) -> str | None:
        """The version that the tools read; None while none was needed."""
        return self._case.version_id

    def definitions(self, style: Style = "anthropic") -> list[dict[str, Any]]:
        """The tools for a model's interface: see `tool_definitions`."""
        return tool_definitions(style)

    async def execute(
        self, name: object, arguments: object = None, *, thought: str = ""
    ) -> dict[str, Any]:
        """Run a tool.

        Args:
            name: of the tool, as the model gave it.
            arguments: as the model gave them: a dict, or the JSON text of one.
            thought: why the model called it, for the trajectory.

        Returns:
            ``{"success": True, …}`` with the tool's fields, or ``{"success": False, "error": …}``
            for an unknown tool, arguments that do not fit, something that is not there, or a tool
            that failed. Always what JSON can say.

        Raises:
            TreeStoreError: the store cannot be reached, or does not take the record of the call
                (never for what a model said).
        """
        begin = time.perf_counter()
        outcome: Outcome | None = None
        shown = _shown_arguments(arguments)
        try:
            tool, checked = self._checked(name, arguments)
            shown = checked
            outcome = await tool(self._case, checked)
            result = {"success": True, **outcome.result}
        except ToolFailure as failure:
            result = {"success": False, "error": str(failure), **failure.fields}
        except (NotFound, InvalidArgument) as error:
            result = {"success": False, "error": error.message, "code": error.code}
        latency_ms = (time.perf_counter() - begin) * 1000
        result = json.loads(json.dumps(result, default=str))
        step = Step(
            tool_name=name if isinstance(name, str) and name in TOOLS else UNKNOWN,
            arguments=shown,
            result=result,
            observation=outcome.observation if outcome else shortened(result["error"], 500),
            nodes=outcome.nodes if outcome else (),
            latency_ms=latency_ms,
            thought=unicode_of(thought)[:THOUGHT_SIZE_MAX],
        )
        step = await self._recorder.record(step)
        if step.success and step.tool_name == "finish":
            self._decision = step.result["decision"]
        return step.result

    def _checked(self, name: object, arguments: object) -> tuple[Tool, dict[str, Any]]:
        """The tool and its arguments, defaults filled in."""
        known = list(TOOLS)
        tool = TOOLS.get(name) if isinstance(name, str) else None
        if tool is None or not isinstance(name, str):
            raise ToolFailure(
                f"There is no tool {_shown(name)}.{did_you_mean(name, known)}",
                available_tools=known,
            )
        if self._decision is not None:
            raise ToolFailure("The case is finished; nothing can be called after finish.")
        try:
            given = parse_arguments(arguments)
        except Unusable as error:
            raise ToolFailure(f"{error} {_usage(name)}") from None
        problems = find_problems(SCHEMAS[name], given)
        if problems:
            raise ToolFailure(f"{' '.join(problems)} {_usage(name)}", problems=problems)
        return tool, with_defaults(SCHEMAS[name], given)


def _usage(name: str) -> str:
    """The tool's arguments in a line."""
    schema = SCHEMAS[name]
    words = [
        argument if argument in schema["required"] else f"[{argument}]"
        for argument in schema["properties"]
    ]
    return f"Usage: {name}({', '.join(words)})."


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def _shown(value: object) -> str:
    """``value`` for a message, whatever it is: short, and Unicode."""
    try:
        text = _repr.repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return shortened(unicode_of(text), UNUSABLE_SIZE_MAX)


def _shown_arguments(arguments: object) -> dict[str, Any]:
    """Arguments for the record; what is no JSON is recorded as the words that it is shown with."""
    try:
        return parse_arguments(arguments)
    except Unusable:
        text = arguments if isinstance(arguments, str) else _shown(arguments)
        return {"unusable": unicode_of(text[:UNUSABLE_SIZE_MAX])}
