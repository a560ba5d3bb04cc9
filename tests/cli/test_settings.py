"""Settings: flags before environment before file before default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treestore.errors import InvalidArgument
from treestore.settings import ServerSettings, load


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("TREESTORE_"):
            monkeypatch.delenv(name)


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('data_dir = "/d"\nport = 1\nhttp-port = 2\nmetrics_port = 3\n')
    monkeypatch.setenv("TREESTORE_HTTP_PORT", "22")
    monkeypatch.setenv("TREESTORE_METRICS_PORT", "33")
    settings = load({"metrics_port": 333}, config)
    assert (settings.port, settings.http_port, settings.metrics_port) == (1, 22, 333)
    assert settings.cache_size_mb == 256


def test_config_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('data_dir = "/d"\nport = 5\n')
    monkeypatch.setenv("TREESTORE_CONFIG", str(config))
    assert load({}).port == 5


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    load({"data_dir": Path("/d"), "host": host}).check_exposure(keys_required=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_beyond_loopback_must_be_asked_for(host: str) -> None:
    settings = load({"data_dir": Path("/d"), "host": host})
    with pytest.raises(InvalidArgument, match="--allow-remote-without-keys"):
        settings.check_exposure(keys_required=False)
    settings.check_exposure(keys_required=True)
    flags = {"data_dir": Path("/d"), "host": host, "allow_remote_without_keys": True}
    load(flags).check_exposure(keys_required=False)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"data_dir": None}, "--data"),
        ({"port": -1}, "--port"),
        ({"grace": -1.0}, "--grace"),
        ({"grace": float("nan")}, "--grace"),
        ({"rate_limit": 0}, "--rate-limit"),
        ({"tls_key": Path("k")}, "both"),
        ({"wal_size_mb": 64, "checkpoint_wal_mb": 33}, "half"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidArgument, match=part):
        ServerSettings(**{"data_dir": Path("/d"), **wrong}).check()


def test_every_setting_has_help_and_a_flag() -> None:
    import attrs

    from treestore.cli.serve import serve

    flags = {parameter.name for parameter in serve.params}
    for field in attrs.fields(ServerSettings):
        assert field.metadata["help"].endswith((".", "..."))
        assert field.name in flags
