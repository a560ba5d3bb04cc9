"""``treestore serve``: the server."""

from __future__ import annotations

import sys
import typing
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import click
import rich_click
import trio

from treestore import settings as server_settings
from treestore.cli import logs
from treestore.cli.program import single
from treestore.errors import InvalidArgument
from treestore.settings import Exposed, ServerSettings


def _option(field: attrs.Attribute[Any]) -> click.Option:
    """The flag of one setting. Its default stays None: only flags that were given count."""
    flag = server_settings.flag_of(field)
    kinds = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
    kind: Any = kinds[0] if kinds and field.name != "log_level" else field.type
    help = field.metadata["help"]
    extra: dict[str, Any] = {}
    if kind is bool:
        extra["is_flag"] = True
    elif kind is Path:
        extra["type"] = click.Path(path_type=Path)
        extra["metavar"] = "DIR" if field.name.endswith("_dir") else "FILE"
    elif field.name == "log_level":
        extra["type"] = click.Choice(typing.get_args(field.type))
    else:
        extra["type"] = kind
    if field.default not in (None, False):
        help = f"{help} [default: {field.default}]"
    return click.Option([flag, field.name], default=None, help=help, **extra)


RECURSION_LIMIT: Final = 3000
"""Thrice the interpreter's default, which is what clients have."""


@click.command(
    cls=rich_click.RichCommand,
    params=[
        *(_option(field) for field in attrs.fields(attrs.resolve_types(ServerSettings))),
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A TOML file with settings. [env: TREESTORE_CONFIG]",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the ready line as JSON."),
    ],
)
@click.pass_context
def serve(context: click.Context, /, config: Path | None, as_json: bool, **flags: Any) -> None:
    """Serve a data directory over TCP and HTTP.

    Prints one line once all ports are bound:

        treestore ready tcp=127.0.0.1:7707 http=127.0.0.1:7780 metrics=127.0.0.1:9090 …

    SIGTERM or SIGINT stops it: no new connections, requests under way finish, exit code 0.
    A second one cuts them off; SIGHUP reads the certificate's files again. Every flag is also a
    variable (--http-port: TREESTORE_HTTP_PORT; --data: TREESTORE_DATA_DIR) and a key of the
    TOML file (http_port).
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = server_settings.load(given, config)
    except InvalidArgument as error:
        raise click.UsageError(error.message, context) from None
    logs.configure(settings.log_level)
    # What a client could encode must be read here, however deeply it is nested, to be answered.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    from actors.server import serve as serve_here
    from treestore.cli.recovering import recovering

    try:
        with recovering() as progress:
            trio.run(partial(serve_here, settings, as_json=as_json, progress=progress))
    except (Exposed, BaseExceptionGroup) as error:
        found = single(error)
        if isinstance(found, Exposed):
            # Known only once the store was looked into, and a fault of the command line still.
            raise click.UsageError(found.message, context) from None
        raise
