"""The server's settings: one class, read from flags, environment and a TOML file.

Of the three, the first that names a setting wins: a flag of ``treestore serve``, then a variable
``TREESTORE_<NAME>``, then a key of the TOML file that ``--config`` or ``TREESTORE_CONFIG`` names,
then the default. Keys are the attribute names below, at the top level of the file::

    data_dir = "/var/lib/treestore"
    port = 7707
    cache_size_mb = 1024
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import typed_settings as ts
from typed_settings.exceptions import (
    ConfigFileLoadError,
    InvalidOptionsError,
    InvalidSettingsError,
    TsError,
)
from typed_settings.loaders import DictLoader

from treestore.errors import InvalidArgument

ENVIRONMENT_PREFIX = "TREESTORE_"
CONFIG_VARIABLE = "TREESTORE_CONFIG"

# What it would say (a missing file, at level ERROR) is said by the errors raised here.
logging.getLogger("typed_settings").addHandler(logging.NullHandler())

LogLevel = Literal["debug", "info", "warning", "error"]


def _setting(default: Any, help: str, *, flag: str = "", low: float | None = None) -> Any:
    metadata = {"help": help, "flag": flag, "low": low}
    return attrs.field(default=default, metadata=metadata)


# ruff: noqa: RUF009 - the rule does not see that _setting makes an attrs field.


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Everything that ``treestore serve`` can be told."""

    data_dir: Path | None = _setting(
        None, "The data directory; created where there is none.", flag="--data"
    )
    host: str = _setting("127.0.0.1", "Interface that all three ports listen on.")
    port: int = _setting(7707, "TCP port of the protocol; 0 picks a free one.")
    http_port: int = _setting(7780, "Port of the HTTP edge; 0 picks a free one.")
    metrics_port: int = _setting(9090, "Port for health and metrics; 0 picks a free one.")
    cache_size_mb: int = _setting(256, "Memory for decoded tree nodes, in MiB.", low=1)
    max_connections: int = _setting(1024, "TCP connections at a time; more are refused.", low=1)
    connection_rate: float = _setting(
        1000.0, "New connections a second, after a burst of --max-connections; others wait.", low=1
    )
    max_message_mb: int = _setting(128, "Largest request, in MiB.", low=1)
    max_frame_kb: int = _setting(1024, "Largest frame of the protocol, in KiB.", low=64)
    wire_memory_mb: int = _setting(
        512, "Memory for requests and answers under way, of all connections, in MiB.", low=1
    )
    http_connections: int = _setting(
        256, "Connections of each HTTP port at a time; more are told 503.", low=1
    )
    http_body_mb: int = _setting(
        32, "Longest body of an HTTP request, in MiB; of JSON lines, longest line.", low=1
    )
    http_memory_mb: int = _setting(
        256, "Memory for bodies of HTTP requests under way, together, in MiB.", low=1
    )
    http_timeout: float = _setting(
        60.0, "Seconds that an HTTP request may take, but for streams and long jobs.", low=0.1
    )
    http_origins: str = _setting(
        "",
        "Web origins (https://example.org, separated by commas; *: all) whose pages may use the "
        "HTTP edge: CORS. None by default.",
    )
    grace: float = _setting(
        10.0, "Seconds that requests under way may take after a stop was asked for.", low=0
    )
    log_level: LogLevel = _setting("info", "Least important lines to log.")
    audit_log: Path | None = _setting(
        None, "Append a JSON line for every administrative action to this file."
    )
    slow_request_ms: float = _setting(
        1000.0, "Requests that take longer are logged, in milliseconds.", low=0
    )
    otel: bool = _setting(
        False, "Export OpenTelemetry spans of requests; needs the extra treestore[otel]."
    )
    rate_limit: int | None = _setting(
        None,
        "Requests a second of each API key without a limit of its own; without keys, of each "
        "address.",
        low=1,
    )
    rate_burst: int | None = _setting(
        None, "Requests at once after a quiet time; by default as many as in a second.", low=1
    )
    total_rate_limit: int | None = _setting(
        None, "Requests a second of all clients together.", low=1
    )
    tls_cert: Path | None = _setting(
        None, "Certificate chain (PEM): TCP and HTTP then speak TLS; needs --tls-key."
    )
    tls_key: Path | None = _setting(None, "Private key (PEM) of --tls-cert.")
    tls_client_ca: Path | None = _setting(
        None, "Only let in who has a certificate of these authorities (PEM); needs --tls-cert."
    )
    allow_remote_without_keys: bool = _setting(
        False,
        "Listen beyond this machine even while there are no API keys: whoever reaches the port "
        "may then read and write everything.",
    )
    wal_size_mb: int = _setting(
        512, "Hard limit of the live log, in MiB; past it writers wait for a checkpoint.", low=64
    )
    watch_retention_mb: int = _setting(
        0,
        "Log to keep beyond what checkpoints need, in MiB, for watchers that fell behind; the last "
        "three segments stay anyway.",
        low=0,
    )
    checkpoint_wal_mb: int = _setting(
        64, "A checkpoint begins after this much log, in MiB ...", low=1
    )
    checkpoint_interval: float = _setting(
        60.0, "... or, if anything changed, after this many seconds.", low=0.1
    )
    snapshot_soft_age: float = _setting(
        300.0, "A snapshot that is open for more seconds is warned of ...", low=0
    )
    snapshot_max_age: float = _setting(
        3600.0, "... and after this many seconds it is evicted.", low=0.1
    )
    snapshot_pinned_mb: int = _setting(
        1024,
        "What snapshots may keep from being used again, together, in MiB; past it the oldest is "
        "evicted.",
        low=1,
    )
    max_transactions: int = _setting(
        4096, "Interactive transactions that may be open at a time; more are refused.", low=1
    )
    compact_free_percent: float = _setting(
        33.0,
        "The page file is compacted when more of it than this was free for a minute ...",
        low=1,
    )
    compact_min_mb: int = _setting(64, "... and that is more than this, in MiB.", low=1)
    archive_dir: Path | None = _setting(
        None,
        "Copy the log to this directory, for restoring to a point in time; the store remembers it.",
    )
    no_archive: bool = _setting(False, "Stop archiving the log.")
    archive_interval_s: float = _setting(
        60.0, "How often the log's segment in use is archived, in seconds.", low=0.1
    )
    scrub_rate_mb: float = _setting(
        4.0, "Verify stored data against bit rot at this rate, in MiB a second; 0: never.", low=0
    )
    scrub_pause: float = _setting(
        3600.0, "Seconds between two passes over everything stored.", low=0
    )

    namespace_cache_mb: int = _setting(
        2048,
        "What namespaces keep loaded for searching, mapped files included, in MiB.",
        low=1,
    )
    namespace_seal_rows: int = _setting(
        8192,
        "Documents that gather in a namespace before they become a segment with an index.",
        low=1,
    )

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            InvalidArgument: it names the setting and says what would work.
        """
        for field in attrs.fields(ServerSettings):
            low, value = field.metadata["low"], getattr(self, field.name)
            if low is not None and value is not None and not value >= low:
                raise InvalidArgument(f"{flag_of(field)} is at least {low}, not {value}.")
            if field.name.endswith("port") and value not in range(65536):
                raise InvalidArgument(f"{flag_of(field)} is 0 to 65535, not {value}.")
        if self.data_dir is None:
            raise InvalidArgument(
                "Say where the data is: --data DIR, or the variable TREESTORE_DATA_DIR."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidArgument("TLS needs both --tls-cert and --tls-key.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidArgument("--tls-client-ca needs --tls-cert and --tls-key.")
        if self.no_archive and self.archive_dir is not None:
            raise InvalidArgument("--archive-dir and --no-archive exclude each other; give one.")
        if self.checkpoint_wal_mb * 2 > self.wal_size_mb:
            raise InvalidArgument(
                f"--checkpoint-wal-mb ({self.checkpoint_wal_mb}) is at most half of "
                f"--wal-size-mb ({self.wal_size_mb})."
            )

    def check_exposure(self, keys_required: bool) -> None:
        """Refuse to listen beyond this machine where nobody would be asked for a key.

        Args:
            keys_required: whether the store has API keys.

        Raises:
            Exposed: it would.
        """
        if keys_required or self.allow_remote_without_keys or is_loopback(self.host):
            return
        raise Exposed(
            f"Listening on {self.host} would let anybody who reaches this machine read and write "
            f"everything, for there are no API keys. Make one with treestore key create --data "
            f"{self.data_dir}, keep to --host 127.0.0.1, or add --allow-remote-without-keys if "
            "that is what you want."
        )


class Exposed(InvalidArgument):
    """The server would answer whoever reaches it."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # A name may resolve to anything.


def flag_of(field: attrs.Attribute[Any]) -> str:
    """The flag that sets ``field``: ``--http-port``."""
    return str(field.metadata["flag"]) or "--" + field.name.replace("_", "-")


def load(flags: Mapping[str, Any], config: Path | None = None) -> ServerSettings:
    """The settings from ``flags`` (attribute names; only those that were given), the environment
    and the TOML file.

    Raises:
        InvalidArgument: one sentence that names the flag, variable or key.
    """
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    files = [] if config is None else [f"!{config}"]
    try:
        settings = ts.load_settings(
            ServerSettings,
            [
                ts.FileLoader({"*": ts.TomlFormat(None)}, files),
                ts.EnvLoader(ENVIRONMENT_PREFIX),
                DictLoader(dict(flags)),
            ],
        )
    except InvalidSettingsError as error:
        raise InvalidArgument(_explain(str(error.exceptions[0]))) from None
    except (ConfigFileLoadError, InvalidOptionsError) as error:
        raise InvalidArgument(f"{config} cannot be used: {_one_line(error)}.") from None
    except OSError as error:
        raise InvalidArgument(f"{config} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{config} is not UTF-8: {error.reason}.") from None
    except TsError as error:
        raise InvalidArgument(f"The settings cannot be used: {_one_line(error)}.") from None
    settings.check()
    return settings


def _explain(text: str) -> str:
    """A sentence for a user from typed-settings' own, which speaks of loaders and converters."""
    found = re.match(r"Could not convert value (.*) for option '(\w+)' from loader (\S+):", text)
    if found is None:
        return f"The settings cannot be used: {_one_line(text)}."
    value, name, loader = found.groups()
    field = attrs.fields_dict(ServerSettings)[name]
    source = {
        "E": ENVIRONMENT_PREFIX + name.upper(),
        "F": f"{name} in {loader[loader.find('[') + 1 : -1]}",
    }.get(loader[0], flag_of(field))
    wanted = "a whole number" if "int" in str(field.type) else "a number"
    if name == "log_level":
        wanted = "debug, info, warning or error"
    elif "bool" in str(field.type):
        wanted = "true or false"
    elif "Path" in str(field.type) or "str" in str(field.type):
        wanted = "a string"
    return f"{source} is {wanted}, not {value}."


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
