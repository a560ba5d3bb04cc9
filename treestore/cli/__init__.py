"""The command line: ``treestore COMMAND``. One module per command."""

from treestore.cli.main import main

__all__ = ["main"]
