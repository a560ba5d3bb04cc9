"""The command group, and what becomes of errors.

However a command ends, its user sees at most one line on standard error and one of these codes:

== =============================================================================
0  done
1  it could not be done
2  the command line makes no sense
130 interrupted (Ctrl-C)
141 whoever read the output went away, as with ``| head``
== =============================================================================
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

import click
import rich_click
from click.shell_completion import shell_complete

from treestore.cli import INTERRUPTED
from treestore.errors import TreeStoreError

TRACEBACK_VARIABLE = "TREESTORE_TRACEBACK"
"""Set to 1, it makes an unexpected error show its traceback."""


def installed_version() -> str:
    """The version of TreeStore, from its package's metadata."""
    try:
        return version("treestore")
    except PackageNotFoundError:
        return "unknown"


COMMANDS = (
    *("as-of", "backup", "bench", "bulk", "check", "compact", "diff", "dump", "get", "ingest"),
    *("key", "loadtest", "repair", "restore", "search", "serve", "stats", "tree", "verify"),
    *("versions", "watch"),
)
"""Each is a command of that name in a module of that name (``_`` for ``-``), in `treestore.cli`."""


class _Commands(rich_click.RichGroup):
    """Loads a command's module when it is asked for: half of a short command is its imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"treestore.cli.{name}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from flags, then TREESTORE_* variables, then the file of --config.",
)
@click.version_option(installed_version(), prog_name="treestore", message="%(prog)s %(version)s")
def cli() -> None:
    """TreeStore: storage for applications that reason over documents."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    if "_TREESTORE_COMPLETE" in os.environ:
        instruction = os.environ["_TREESTORE_COMPLETE"]
        sys.exit(shell_complete(cli, {}, "treestore", "_TREESTORE_COMPLETE", instruction))
    # Output for people: rather an odd character than an error on terminals without Unicode.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    sys.exit(guarded(lambda: _invoke(list(sys.argv[1:] if arguments is None else arguments))))


def _invoke(arguments: list[str]) -> int:
    with cli.make_context("treestore", arguments) as context:
        result = cli.invoke(context)
    return result if isinstance(result, int) else 0


def guarded(run: Callable[[], int]) -> int:
    """The exit code of ``run``; its errors become one line on standard error."""
    try:
        code = run()
        sys.stdout.flush()
    # Everything ends here: what is not turned into a line and an exit code would be a traceback.
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _report(single(error))
    return code


def single(error: BaseException) -> BaseException:
    """The error that matters out of nested groups of them."""
    while isinstance(error, BaseExceptionGroup):
        inner = list(error.exceptions)
        inner.sort(key=lambda e: not isinstance(e, KeyboardInterrupt | TreeStoreError))
        error = inner[0]
    return error


def _report(error: BaseException) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        # rich-click has printed the help already where it is the formatter.
        if error.message:
            click.echo(error.message, err=True)
        return 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "treestore"
        text = one_line(error.format_message())
        stop = "" if text.endswith((".", "?", "!")) else "."
        _say(f"{command}: {text}{stop} ({command} --help tells more)")
        return 2
    if isinstance(error, click.ClickException):
        _say(f"treestore: {one_line(error.format_message())}")
        return 1
    if isinstance(error, KeyboardInterrupt | click.Abort):
        _say("treestore: interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Nothing more can be written; without this, Python would say so at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, TreeStoreError):
        _say(f"treestore: {one_line(error.message)}")
        return 1
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        traceback.print_exception(error)
    elif isinstance(error, OSError):
        _say(f"treestore: {one_line(str(error))}")
    else:
        _say(
            f"treestore: a fault in TreeStore: {type(error).__name__}: {one_line(str(error))} "
            f"({TRACEBACK_VARIABLE}=1 shows where)"
        )
    return 1


def one_line(text: str) -> str:
    """``text`` as one line without control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass  # Nobody is there to read it.
