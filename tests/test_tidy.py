"""Rules of the code base that no linter knows.

Each rule is a function from a module to its complaints. The tables below hold, for every rule, a
snippet that it must accept and snippets that it must reject, so that a rule that has gone blind
fails here. The rules read the syntax tree only: they see names, not values.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "treestore", "actors", "scripts")

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600

Finding = tuple[int, str]
"""A line number and what is wrong there."""

Statement = ast.Import | ast.ImportFrom


@dataclass(frozen=True)
class Module:
    """One source file: its path from the checkout's root, and its text."""

    path: str
    source: str
    tree: ast.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.source, self.path))

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def name(self) -> str:
        """The dotted name that the module is imported by."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def is_under(self, *packages: str) -> bool:
        return any(is_within(self.name, package) for package in packages)


def is_within(name: str, package: str) -> bool:
    """Is the dotted name that package, or something inside it?"""
    return name == package or name.startswith(package + ".")


# --- sizes -----------------------------------------------------------------------------------


def lines_too_long(module: Module) -> Iterator[Finding]:
    for number, line in enumerate(module.source.splitlines(), start=1):
        if len(line) > COLUMNS_MAX:
            yield number, f"{len(line)} columns, more than {COLUMNS_MAX}"


def functions_too_long(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name}: {lines} lines, more than {FUNCTION_LINES_MAX}"


def module_too_long(module: Module) -> Iterator[Finding]:
    lines = len(module.source.splitlines())
    if lines > MODULE_LINES_MAX:
        yield lines, f"{lines} lines, more than {MODULE_LINES_MAX}"


# --- the synchronous core touches files in few modules only ---------------------------------

DISK_MODULES = {
    "treestore.engine.disk",
    "treestore.engine.realdisk",
    # The search library owns its files and knows no disk but the real one. That is allowed because
    # an index is never the only copy of anything: damaged, missing or stale, it is made again.
    "treestore.search.folder",
    # Segments are mapped into memory, which no disk but the real one can do; they too can be made
    # again from the tree.
    "treestore.search.vectors.segment_file",
}
NO_FILES = ("treestore.engine", "treestore.stores", "treestore.search", "treestore.model")

# Modules whose use is reading or changing files. `os` and `io` are mostly that: the few names
# that are not are allowed by name.
FILE_MODULES = frozenset(
    {
        "codecs",
        "fcntl",
        "fileinput",
        "filecmp",
        "glob",
        "linecache",
        "mmap",
        "posix",
        "shutil",
        "tempfile",
    }
)
HARMLESS = {
    "os": frozenset(
        {
            "PathLike",
            "cpu_count",
            "environ",
            "fsdecode",
            "fsencode",
            "fspath",
            "getpid",
            "sep",
            "strerror",
        }
    ),
    "os.path": frozenset(
        {"basename", "commonpath", "dirname", "join", "normpath", "split", "splitext"}
    ),
    "io": frozenset({"BytesIO", "StringIO", "SEEK_CUR", "SEEK_END", "SEEK_SET"}),
}
# Methods that only `pathlib.Path` has. Its other methods have names that a `Disk` may use too.
PATH_METHODS = frozenset(
    {"hardlink_to", "iterdir", "read_text", "rglob", "symlink_to", "write_bytes", "write_text"}
)


def files_touched_in_engine(module: Module) -> Iterator[Finding]:
    if not module.is_under(*NO_FILES) or module.name in DISK_MODULES:
        return
    aliases = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                shown = alias.asname or alias.name.partition(".")[0]
                aliases[shown] = alias.name if alias.asname else shown
                if alias.name in FILE_MODULES:
                    yield node.lineno, f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if node.module in FILE_MODULES or is_file_call(f"{node.module}.{alias.name}"):
                    yield node.lineno, f"imports {alias.name} from {node.module}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "open" and isinstance(node.ctx, ast.Load):
            yield node.lineno, "uses open"
        elif isinstance(node, ast.Attribute):
            if node.attr in PATH_METHODS:
                yield node.lineno, f"uses .{node.attr}"
            elif is_file_call(full := dotted(node, aliases)):
                yield node.lineno, f"uses {full}"


def is_file_call(name: str) -> bool:
    """Is the dotted name something of `os`, `os.path` or `io` that is not harmless?"""
    owner, _, attribute = name.rpartition(".")
    return owner in HARMLESS and name not in HARMLESS and attribute not in HARMLESS[owner]


def dotted(node: ast.expr, aliases: Mapping[str, str]) -> str:
    """``os.path.join`` of an attribute chain, import aliases resolved; "" for anything else."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value, aliases)):
        return f"{owner}.{node.attr}"
    return ""


# --- imports run one way ---------------------------------------------------------------------

LOOPS = ("trio", "asyncio", "anyio")

# Importer → what it and everything inside it must not import, wherever the import stands.
FORBIDDEN_IMPORTS: Mapping[str, tuple[str, ...]] = {
    "protocol": ("treestore", "actors", "scripts", "tests", *LOOPS, "socket"),
    "treestore.engine": (
        *("treestore.stores", "treestore.client", "actors", "protocol", "scripts", "tests"),
        *LOOPS,
    ),
    "treestore.search": (
        *("treestore.engine", "treestore.stores", "treestore.client", "actors", "protocol"),
        *("scripts", "tests", *LOOPS),
    ),
    "treestore.stores": ("actors", "protocol", "treestore.client", "scripts", "tests", *LOOPS),
    "treestore": ("scripts", "tests"),
    "actors": ("scripts", "tests"),
    # scripts/chaos.py runs the tests' crash disk, workloads and checkers, for longer.
    "scripts.bench": ("tests",),
    "scripts.demo": ("tests",),
}


def imports_against_the_stream(module: Module) -> Iterator[Finding]:
    for importer, forbidden in FORBIDDEN_IMPORTS.items():
        if not module.is_under(importer):
            continue
        for statement in import_statements(module.tree):
            for target in imported_names(module, statement):
                if any(is_within(target, package) for package in forbidden):
                    yield statement.lineno, f"{importer} must not import {target}"


def import_statements(tree: ast.AST) -> Iterator[Statement]:
    """Every import statement, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, Statement):
            yield node


def imported_names(module: Module, statement: Statement) -> Iterator[str]:
    """Absolute dotted names; of ``from a import b`` it is ``a.b``, be that a module or not."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    base = statement.module or ""
    if statement.level:
        parts = module.name.split(".")
        keep = len(parts) - statement.level + module.is_package
        base = ".".join(filter(None, [*parts[:keep], base]))
    yield from (f"{base}.{alias.name}" for alias in statement.names)


# --- no import cycles ------------------------------------------------------------------------


def import_time_statements(body: Iterable[ast.stmt]) -> Iterator[Statement]:
    """The imports that run while the module is imported: none in functions or for types only."""
    for node in body:
        if isinstance(node, Statement):
            yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            yield from import_time_statements(node.orelse)
        else:
            for block in ("body", "handlers", "orelse", "finalbody", "cases"):
                for child in getattr(node, block, ()):
                    if isinstance(child, ast.ExceptHandler | ast.match_case):
                        yield from import_time_statements(child.body)
                    else:
                        yield from import_time_statements([child])


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_cycle(modules: Iterable[Module]) -> list[str]:
    """The names along one cycle of imports, or an empty list.

    An import of ``a.b`` counts as one of the file ``a/b.py``, not of ``a/__init__.py`` as well:
    a package may hand on the names of its modules.
    """
    by_name = {module.name: module for module in modules}
    graph = {}
    for module in by_name.values():
        targets = {
            by_name[name].name if name in by_name else name.rpartition(".")[0]
            for statement in import_time_statements(module.tree.body)
            for name in imported_names(module, statement)
        }
        graph[module.name] = sorted((targets & by_name.keys()) - {module.name})
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as cycle:
        return list(cycle.args[1])
    return []


# --- the rules on our code -------------------------------------------------------------------

Rule = Callable[[Module], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    lines_too_long,
    functions_too_long,
    module_too_long,
    files_touched_in_engine,
    imports_against_the_stream,
)


def read_modules() -> list[Module]:
    return [
        Module(path.relative_to(CHECKOUT).as_posix(), path.read_text("utf-8"))
        for package in PACKAGES
        for path in sorted((CHECKOUT / package).rglob("*.py"))
    ]


MODULES = read_modules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_our_code_is_tidy(rule: Rule) -> None:
    complaints = [
        f"{module.path}:{line}: {text}" for module in MODULES for line, text in rule(module)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_our_imports_have_no_cycle() -> None:
    assert not import_cycle(MODULES)


@pytest.mark.parametrize("package", ["protocol", "treestore", "actors"])
def test_every_package_is_seen(package: str) -> None:
    assert any(module.is_under(package) for module in MODULES)
    assert (CHECKOUT / package / "py.typed").is_file()


# --- the rules on snippets: each can pass, and each can fail ---------------------------------

ENGINE = "treestore/engine/log.py"
STORE = "treestore/stores/kv.py"


def function_of(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


ACCEPTED: list[tuple[Rule, str, str]] = [
    (lines_too_long, STORE, "#" * COLUMNS_MAX),
    (functions_too_long, STORE, function_of(FUNCTION_LINES_MAX)),
    (module_too_long, STORE, "pass\n" * MODULE_LINES_MAX),
    (files_touched_in_engine, ENGINE, "import os\nos.path.join('a', os.fspath('b'))"),
    (files_touched_in_engine, ENGINE, "disk.open(path); log.sync(); self.disk.rename(a, b)"),
    (files_touched_in_engine, ENGINE, "from io import BytesIO"),
    (files_touched_in_engine, "treestore/engine/disk.py", "import os, fcntl\nos.fsync(open('a'))"),
    (files_touched_in_engine, "treestore/search/folder.py", "import shutil\nopen('a')"),
    (files_touched_in_engine, "treestore/cli/get.py", "open('a')"),
    (imports_against_the_stream, ENGINE, "from treestore.errors import NotFound"),
    (imports_against_the_stream, ENGINE, "from . import disk\nimport triode, treestore.storeship"),
    (imports_against_the_stream, STORE, "import treestore.engine.tree\nfrom .access import Read"),
    (imports_against_the_stream, "actors/writer.py", "import trio, treestore.stores, protocol"),
    (imports_against_the_stream, "protocol/frames.py", "import msgspec\nfrom .errors import Bad"),
]

REJECTED: list[tuple[Rule, str, str]] = [
    (lines_too_long, STORE, "#" * (COLUMNS_MAX + 1)),
    (functions_too_long, STORE, function_of(FUNCTION_LINES_MAX + 1)),
    (functions_too_long, STORE, "async " + function_of(FUNCTION_LINES_MAX + 1)),
    (module_too_long, STORE, "pass\n" * (MODULE_LINES_MAX + 1)),
    (files_touched_in_engine, ENGINE, "open('a')"),
    (files_touched_in_engine, ENGINE, "opener = open"),
    (files_touched_in_engine, ENGINE, "import os\nos.open('a', os.O_RDONLY)"),
    (files_touched_in_engine, ENGINE, "import os\ndef f(): os.fsync(1)"),
    (files_touched_in_engine, ENGINE, "import os as o\no.rename('a', 'b')"),
    (files_touched_in_engine, ENGINE, "import os.path\nos.path.exists('a')"),
    (files_touched_in_engine, ENGINE, "from os import fdatasync as quick"),
    (files_touched_in_engine, ENGINE, "from os.path import exists"),
    (files_touched_in_engine, ENGINE, "import io\nio.open('a')"),
    (files_touched_in_engine, ENGINE, "import shutil"),
    (files_touched_in_engine, ENGINE, "from tempfile import mkdtemp"),
    (files_touched_in_engine, ENGINE, "Path('a').write_bytes(b'')"),
    (imports_against_the_stream, "protocol/frames.py", "import treestore"),
    (imports_against_the_stream, "protocol/frames.py", "from actors.writer import Writer"),
    (imports_against_the_stream, "protocol/frames.py", "import trio"),
    (imports_against_the_stream, ENGINE, "from treestore import stores"),
    (imports_against_the_stream, ENGINE, "from ..stores import kv"),
    (imports_against_the_stream, "treestore/engine/log/__init__.py", "from ...stores import kv"),
    (imports_against_the_stream, ENGINE, "def f():\n    import actors.writer"),
    (imports_against_the_stream, ENGINE, "import protocol.frames"),
    (imports_against_the_stream, ENGINE, "import trio.lowlevel"),
    (imports_against_the_stream, STORE, "import trio"),
    (files_touched_in_engine, "treestore/search/query.py", "open('a')"),
    (files_touched_in_engine, STORE, "open('a')"),
    (imports_against_the_stream, "treestore/search/query.py", "import treestore.stores.keys"),
    (imports_against_the_stream, "treestore/search/query.py", "import trio"),
    (imports_against_the_stream, STORE, "from actors import writer"),
    (imports_against_the_stream, STORE, "from protocol import frames"),
    (imports_against_the_stream, "treestore/cli.py", "import scripts.chaos"),
    (imports_against_the_stream, "actors/writer.py", "from tests import model"),
]


@pytest.mark.parametrize(("rule", "path", "source"), ACCEPTED)
def test_rule_accepts(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Module(path, source))) == []


@pytest.mark.parametrize(("rule", "path", "source"), REJECTED)
def test_rule_rejects(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Module(path, source))) != []


def test_every_rule_has_snippets() -> None:
    assert {rule for rule, _, _ in ACCEPTED} == {rule for rule, _, _ in REJECTED} == set(RULES)


# Of each pair of files, the second imports the first; this is what the first one says.
ACYCLIC = [
    "import os",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.b",
    "import typing\nif typing.TYPE_CHECKING:\n    from pkg.b import B",
    "def f():\n    from pkg import b",
    "class C:\n    def f(self):\n        import pkg.b",
    "from pkg import c",
]
CYCLIC = [
    "import pkg.b",
    "from pkg import b",
    "from pkg.b import B",
    "from . import b",
    "from .b import B",
    "try:\n    import os\nexcept ImportError:\n    import pkg.b",
    "if TYPE_CHECKING:\n    pass\nelse:\n    import pkg.b",
    "class C:\n    import pkg.b",
    "with x:\n    import pkg.b",
    "match x:\n    case 1:\n        import pkg.b",
]


def pair(source: str) -> list[Module]:
    return [
        Module("pkg/__init__.py", "from pkg.b import B"),
        Module("pkg/a.py", source),
        Module("pkg/b.py", "import pkg.a"),
        Module("pkg/c.py", ""),
    ]


@pytest.mark.parametrize("source", ACYCLIC)
def test_cycle_rule_accepts(source: str) -> None:
    assert import_cycle(pair(source)) == []


@pytest.mark.parametrize("source", CYCLIC)
def test_cycle_rule_rejects(source: str) -> None:
    assert set(import_cycle(pair(source))) == {"pkg.a", "pkg.b"}
