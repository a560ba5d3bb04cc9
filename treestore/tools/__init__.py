"""The tools of an agent that decides cases by a policy, on top of a TreeStore.

`ToolExecutor` runs them and records every call; ``docs/tools.md`` describes each.
"""

from __future__ import annotations

from treestore.tools.blocking import BlockingToolExecutor
from treestore.tools.definitions import TOOL_DEFINITIONS, tool_definitions
from treestore.tools.executor import ToolExecutor
from treestore.tools.facts import CaseFacts, Fact
from treestore.tools.providers import LiteratureProvider, Study

__all__ = [
    "TOOL_DEFINITIONS",
    "BlockingToolExecutor",
    "CaseFacts",
    "Fact",
    "LiteratureProvider",
    "Study",
    "ToolExecutor",
    "tool_definitions",
]
