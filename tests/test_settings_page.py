"""docs/operations.md and the program agree, and it quotes what is really said."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from actors.database import open_database
from actors.mail import WriterLimits
from actors.observability.catalogue import CATALOGUE
from actors.scrubber import ScrubOptions
from treestore.cli.program import cli
from treestore.engine.options import EngineOptions
from treestore.settings import ENVIRONMENT_PREFIX, ServerSettings, flag_of, load
from treestore.stores.namespaces.upkeep import UpkeepOptions

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = (CHECKOUT / "docs/operations.md").read_text("utf-8")
TROUBLE = PAGE.partition("\n## Troubleshooting\n")[2]


def table(heading: str) -> dict[str, list[str]]:
    """The rows of all tables from one heading to the next of its level: name → other cells."""
    level = re.match("#+", heading)
    assert level is not None
    _, found, rest = PAGE.partition(f"\n{heading}\n")
    assert found, f"there is no {heading}"
    section = re.split(rf"^#{{2,{len(level[0])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0].startswith("`"):
            assert cells[0] not in rows, f"{cells[0]} is there twice"
            rows[cells[0].strip("`")] = cells[1:]
    return rows


OPTIONS = (EngineOptions, WriterLimits, ScrubOptions, UpkeepOptions)
SERVER = table("### `treestore serve`")
FIELDS = attrs.fields_dict(ServerSettings)


def test_every_setting_of_the_server_is_there_and_no_other() -> None:
    assert sorted(SERVER) == sorted(FIELDS)


def unit_of(field: attrs.Attribute[Any]) -> str:
    """The unit that a name or a type promises; empty where it promises none."""
    if "bool" in str(field.type):
        return "switch"
    if "Path" in str(field.type):
        return "path"
    ends = {"_mb": "MiB", "_kb": "KiB", "_ms": "milliseconds", "_s": "seconds", "port": "port"}
    ends |= {"_percent": "percent", "timeout": "seconds", "interval": "seconds", "_age": "seconds"}
    return next((unit for end, unit in ends.items() if field.name.endswith(end)), "")


@pytest.mark.parametrize("name", FIELDS)
def test_a_row_says_what_the_program_does(name: str) -> None:
    field = FIELDS[name]
    variable, flag, unit, default, what, when = SERVER[name]
    assert variable == f"`{ENVIRONMENT_PREFIX}{name.upper()}`"
    assert flag == f"`{flag_of(field)}`"
    assert unit.startswith(unit_of(field) or unit)
    assert unit
    words = {"None": "–", "False": "off", "": "none"}
    plain = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    assert default == words.get(plain, plain)
    assert what.endswith((".", ";"))
    assert when


def shown(name: str, value: Any) -> str:
    """A default as the page writes it."""
    if isinstance(value, int) and "bytes" in name:
        for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value and value % size == 0:
                return f"{value // size} {unit}"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and value > 1 else str(value)


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_an_embedded_store(options: type[attrs.AttrsInstance]) -> None:
    rows = table(f"#### `{options.__module__}.{options.__name__}`")
    fields = attrs.fields_dict(options)
    assert list(rows) == list(fields)
    for name, (unit, default, what, when) in rows.items():
        assert default == shown(name, fields[name].default), name
        assert unit == ("bytes a second" if name.startswith("rate") else unit)
        assert ("bytes" in unit) == ("bytes" in name)
        assert what
        assert when


def test_arguments_of_open() -> None:
    rows = table("### `treestore.open()`")
    parameters = inspect.signature(open_database).parameters
    named = {name: row for name, row in rows.items() if name in parameters}
    assert list(named) == list(parameters)
    assert rows.keys() - named.keys() <= {
        field.name for options in OPTIONS
        for field in attrs.fields(options)
    }  # fmt: skip
    for name, (_, default, what, when) in named.items():
        value = parameters[name].default
        if value is inspect.Parameter.empty:
            assert default == "–"
        elif name != "threads":
            assert default == shown(name, value), name
        assert what
        assert when


def test_the_example_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert tomllib.loads(example).keys() <= FIELDS.keys()
    config = tmp_path / "treestore.toml"
    config.write_text(example + 'audit_log = "here.jsonl"\n')
    settings = load({}, config)
    assert settings.rate_limit == 500
    assert settings.audit_log == tmp_path / "here.jsonl"  # As the page says of such paths.


def commands(group: click.Group) -> Iterator[click.Command]:
    """All of them, those within others included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


def test_the_commands_variables_are_all_there() -> None:
    found = set()
    for command in commands(cli):
        for parameter in command.params:
            told = re.search(r"\[env: (\w+)\]", getattr(parameter, "help", None) or "")
            variable = parameter.envvar or (told and told[1])
            if variable:
                found.add((variable, max(parameter.opts, key=len)))
    rows = table("### Other commands")
    assert found - {("TREESTORE_CONFIG", "--config")} == {
        (variable, row[0].strip("`")) for variable, row in rows.items()
    }


def strings_of_the_program() -> str:
    """Every text in the sources; parts of one text are joined as the interpreter joins them."""
    trees = (
        ast.parse(path.read_text("utf-8"))
        for package in ("treestore", "actors", "protocol")
        for path in (CHECKOUT / package).rglob("*.py")
    )
    return "\n".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_quoted_sentences_are_really_said() -> None:
    rows = [line for line in TROUBLE.splitlines() if line.startswith("| ")]
    quoted = [part for row in rows for part in re.findall(r'"([^"]+)"', row.split("|")[1])]
    assert len(quoted) >= 9
    said = strings_of_the_program()
    for part in quoted:
        assert part in said, part


def test_named_metrics_and_settings_exist() -> None:
    metrics = {metric.full_name for metric in CATALOGUE}
    for name in re.findall(r"`(treestore_\w+)`", PAGE):
        assert name in metrics, name
    rows = "\n".join(line for line in TROUBLE.splitlines() if line.startswith("| "))
    others = {"run_transaction", "wait_when_limited", "request_id", "explain", "describe"}
    codes = {"corruption", "outcome_unknown", "snapshot_expired", "feed_expired", "internal"}
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", rows):
        assert name in FIELDS or name in metrics | others | codes, name


@pytest.mark.parametrize("page", sorted(path.name for path in (CHECKOUT / "docs").glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (CHECKOUT / "docs" / page).read_text("utf-8")
    for file, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
        target = (CHECKOUT / "docs" / (file or page)).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", target, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in anchors, f"{file}#{anchor}"
