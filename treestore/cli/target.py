"""Which database a command works on: a directory in this process, or a server."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
import click
import trio

from treestore.cli import logs
from treestore.errors import InvalidArgument

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class Target:
    """A data directory, or the address of a server."""

    data: Path | None
    address: str | None
    api_key: str | None = None
    tls_ca: Path | None = None

    @asynccontextmanager
    async def database(
        self, *, create: bool = False, timeout: float = 30.0
    ) -> AsyncGenerator[Any, None]:
        """The database, embedded or remote.

        Args:
            create: make the data directory where there is none. A command that only reads must
                not answer a misspelled path with an empty database.
            timeout: seconds that a call to a server may take.
        """
        import treestore

        if self.data is not None:
            from treestore.cli.recovering import recovering

            with recovering() as progress:
                async with treestore.open(str(self.data), create=create, progress=progress) as db:
                    yield db
        else:
            assert self.address is not None
            tls = None
            if self.tls_ca is not None:
                tls = trust(self.tls_ca)
            async with treestore.connect(
                self.address, api_key=self.api_key, tls=tls, timeout=timeout
            ) as remote:
                yield remote


def trust(file: Path) -> ssl.SSLContext:
    """A context that trusts the certificates in ``file``."""
    try:
        return ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"{file} is no file of certificates (PEM): {error}.") from None


def target_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add ``--data`` and ``--connect``; the command gets a `Target` as ``target``."""

    @click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The data directory to open in this process. [env: TREESTORE_DATA_DIR]",
    )
    @click.option(
        "--connect",
        metavar="HOST:PORT",
        help="The server to ask instead. [env: TREESTORE_CONNECT]",
    )
    @click.option(
        "--api-key",
        envvar="TREESTORE_API_KEY",
        metavar="KEY",
        help="API key for the server. [env: TREESTORE_API_KEY]",
    )
    @click.option(
        "--tls-ca",
        type=click.Path(path_type=Path),
        envvar="TREESTORE_TLS_CA",
        metavar="FILE",
        help="Speak TLS with the server and trust these certificates (PEM).",
    )
    @click.pass_context
    @wraps(command)
    def with_target(
        context: click.Context,
        /,
        *args: Any,
        data: Path | None,
        connect: str | None,
        api_key: str | None,
        tls_ca: Path | None,
        **kwargs: Any,
    ) -> T:
        target = _choose(context, data, connect, api_key, tls_ca)
        return command(*args, target=target, **kwargs)

    return with_target


def _choose(
    context: click.Context,
    data: Path | None,
    address: str | None,
    api_key: str | None,
    tls_ca: Path | None,
) -> Target:
    # A flag wins over a variable, so the two are told apart before one is chosen.
    if data is not None and address is not None:
        raise click.UsageError("--data and --connect exclude each other; give one.", context)
    if data is None and address is None:
        directory = os.environ.get("TREESTORE_DATA_DIR")
        address = os.environ.get("TREESTORE_CONNECT") or None
        if directory and address is None:
            data = Path(directory)
        if data is None and address is None:
            raise click.UsageError(
                "Say which database: --data DIR or --connect HOST:PORT.", context
            )
    if address is not None:
        from treestore.client.remote import parse_address

        try:
            parse_address(address)
        except InvalidArgument as error:
            raise click.UsageError(error.message, context) from None
    return Target(data, address, api_key, tls_ca)


def run(main: Callable[[], Awaitable[T]]) -> T:
    """`trio.run` for a command: only warnings are logged."""
    logs.configure("warning")
    return trio.run(main)
