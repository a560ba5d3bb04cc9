"""``treestore key``: make, list and revoke API keys."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import rich_click
from rich.table import Table

from treestore.cli.console import errors, output, print_json, styled
from treestore.cli.target import Target, run, target_options
from treestore.errors import InvalidArgument
from treestore.model.security import ApiKey, ApiKeyInfo
from treestore.stores.records.moments import to_moment
from treestore.stores.security.apikeys import check_key_id
from treestore.stores.security.scopes import parse_scopes

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_span = re.compile(r"(\d{1,6})([dhms])", re.ASCII).fullmatch


@click.group(cls=rich_click.RichGroup)
def key() -> None:
    """Make, list and revoke API keys.

    Once a key exists, a server answers nobody without one. Give --data DIR while no server has the
    directory, or --connect with a key that has the scope admin; the first key of a running server
    is made over loopback, without one.
    """


@key.command(cls=rich_click.RichCommand)
@click.option(
    "--scope",
    "--scopes",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="What it may do: read, write, admin, or for example read:collections/people* or "
    "write:policies/acme-*. Several: separated by commas, or the flag again.",
)
@click.option("--name", default="", metavar="NAME", help="What people call it.")
@click.option(
    "--expires",
    metavar="WHEN",
    help="When it stops to work: after a time like 90d or 12h, or a date or time (UTC).",
)
@click.option(
    "--rate-limit",
    type=float,
    metavar="N",
    help="Requests a second; by default the server's own limit holds.",
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def create(
    context: click.Context,
    /,
    target: Target,
    scopes: tuple[str, ...],
    name: str,
    expires: str | None,
    rate_limit: float | None,
    as_json: bool,
) -> None:
    """Make a key and print it, this once.

    The key is all that is printed on standard output: KEY=$(treestore key create …) works.
    """
    wanted = [part.strip() for scope in scopes for part in scope.split(",")]
    try:
        parse_scopes(wanted)
        expires_at = None if expires is None else _moment(expires)
    except InvalidArgument as error:
        raise click.UsageError(error.message, context) from None

    async def main() -> ApiKey:
        # A directory without a store, too: so that its first server already asks for the key.
        async with target.database(create=True) as db:
            made: ApiKey = await db.admin.create_key(
                wanted, name=name, expires_at=expires_at, rate_limit=rate_limit
            )
            return made

    made = run(main)
    if as_json:
        print_json(made)
        return
    click.echo(made.secret)
    until = "" if made.expires_at is None else f", until {made.expires_at:%Y-%m-%d %H:%M} UTC"
    errors().print(
        f"key {made.key_id} may {', '.join(made.scopes)}{until}. It is shown this once; "
        "keep it somewhere safe.",
        markup=False,
    )


@key.command(name="list", cls=rich_click.RichCommand)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_keys(target: Target, as_json: bool) -> None:
    """Show every key, without its secret."""

    async def main() -> list[ApiKeyInfo]:
        async with target.database() as db:
            found: list[ApiKeyInfo] = await db.admin.list_keys()
            return found

    found = run(main)
    if as_json:
        print_json(found)
    elif not found:
        output().print("There are no keys: a server answers everybody who reaches it.")
    else:
        output().print(_table(found))


@key.command(cls=rich_click.RichCommand)
@click.argument("key_id")
@target_options
@click.pass_context
def revoke(context: click.Context, /, target: Target, key_id: str) -> None:
    """Make the key KEY_ID count no more, on open connections too."""
    try:
        check_key_id(key_id)
    except InvalidArgument as error:
        raise click.UsageError(error.message, context) from None

    async def main() -> bool:
        async with target.database() as db:
            changed: bool = await db.admin.revoke_key(key_id)
            return changed

    changed = run(main)
    state = "revoked" if changed else "was revoked before"
    output().print(f"key {key_id} {state}", markup=False)


def _moment(text: str) -> datetime:
    span = _span(text)
    if span is None:
        return to_moment(text, "--expires")
    try:
        return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    except OverflowError:
        raise InvalidArgument(f"--expires {text} is outside the calendar.") from None


def _table(keys: list[ApiKeyInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "status", "scopes", "a second", "created", "expires", "last used", "name"):
        table.add_column(name)
    for info in keys:
        table.add_row(
            styled(info.key_id, "cyan"),
            info.status,
            styled(", ".join(info.scopes)),
            "" if info.rate_limit is None else f"{info.rate_limit:g}",
            _shown(info.created_at),
            _shown(info.expires_at),
            _shown(info.last_used_at),
            styled(info.name),
        )
    return table


def _shown(moment: Any) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
