"""Prompts and their use, as every face of TreeStore returns them.

The classes are also the record format, as in `treestore.model.metadata`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class PromptVersion:
    """One version of a prompt. It never changes.

    Attributes:
        prompt_id: the prompt.
        version: 1, 2, 3, … unless given otherwise.
        content: the text of the prompt.
        content_hash: SHA-256 of content, tool schemas and variables, in hexadecimal.
        tool_schemas: the tools that go with it: any JSON values.
        variables: names that ``content`` leaves open.
        author: who wrote it.
        deployed_at: from when on it is in use (UTC).
        created_at: when it was stored (UTC).
        metadata: whatever else there is to know.
    """

    prompt_id: str
    version: int
    content: str
    content_hash: str
    tool_schemas: list[Any] = attrs.field(factory=list)
    variables: tuple[str, ...] = ()
    author: str = ""
    deployed_at: datetime
    created_at: datetime
    metadata: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Prompt:
    """A prompt as a whole.

    Attributes:
        prompt_id: unique.
        version_count: how many versions it has.
        latest_version: the highest one.
        created_at: when its first version was stored (UTC).
        updated_at: when its last version was stored (UTC).
    """

    prompt_id: str
    version_count: int
    latest_version: int
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class PromptUsage:
    """One use of a prompt.

    Attributes:
        usage_id: given by the store; orders as the uses did.
        prompt_id: the prompt.
        version: the version that was used.
        case_id: the case that it was used for.
        outcome: what came of it, such as "met"; None: not known.
        success: whether that was what it should; None: not known.
        latency_ms: until the response, in milliseconds.
        tool_result_ids: the tool results that came of it.
        tool_results_succeeded: how many of these were successes.
        filled_variables: what the prompt's variables stood for: name → JSON value.
        response: what came back: any JSON value, mostly a text.
        input_tokens: tokens of the prompt.
        output_tokens: tokens of the response.
        used_at: when (UTC).
        metadata: whatever else there is to know.
    """

    usage_id: str
    prompt_id: str
    version: int
    case_id: str
    outcome: str | None = None
    success: bool | None = None
    latency_ms: float | None = None
    tool_result_ids: tuple[str, ...] = ()
    tool_results_succeeded: int = 0
    filled_variables: dict[str, Any] = attrs.field(factory=dict)
    response: Any = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    used_at: datetime
    metadata: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class PromptEffectiveness:
    """What the uses of one version of a prompt came to.

    Attributes:
        prompt_id: the prompt.
        version: the version.
        uses: how often it was used.
        outcomes: outcome → how often, of the uses that have one.
        judged: uses of which it is known whether they were a success.
        success_count: how many of these were.
        success_rate: ``success_count`` of ``judged``; None where none is judged.
        latency_count: uses with a latency; what follows is of these, in milliseconds, and None
            without any.
        latency_mean_ms: exact to the microsecond.
        latency_p50_ms: the median; like all percentiles within 1 % of the exact one.
        latency_p90_ms: 90 of 100 uses took no longer.
        latency_p99_ms: 99 of 100 uses took no longer.
        input_tokens: of all uses that state them, together.
        output_tokens: likewise.
        tool_results: tool results that the uses name.
        tool_results_succeeded: how many of these were successes.
        tool_success_rate: of these; None without any.
    """

    prompt_id: str
    version: int
    uses: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict)
    judged: int = 0
    success_count: int = 0
    success_rate: float | None = None
    latency_count: int = 0
    latency_mean_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    tool_results: int = 0
    tool_results_succeeded: int = 0
    tool_success_rate: float | None = None
