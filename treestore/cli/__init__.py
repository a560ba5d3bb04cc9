"""The command line: ``treestore COMMAND``. One module per command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; what ``treestore`` calls."""
    try:
        # Half of a short command is its imports; Ctrl-C may come there, too.
        from treestore.cli.program import run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run(arguments)
