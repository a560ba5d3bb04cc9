"""The server's certificate, which may be exchanged while connections are open."""

from __future__ import annotations

import ssl
from pathlib import Path

from treestore.errors import InvalidArgument


class Certificates:
    """TLS from files.

    ``context`` is one object for the life of the server: every edge is given it, whatever library
    makes its connections. What `reload` reads takes effect in the handshakes that begin from then
    on: the context's hook hands each over to the newest inner one, whole, so that no handshake ever
    sees the certificate of one pair of files with the key of another. Open connections go on.

    Args:
        certificate: chain, PEM.
        key: its private key, PEM, without a passphrase.
        client_ca: clients must present a certificate that one of these authorities (PEM) signed;
            None: they need none.

    Raises:
        InvalidArgument: the files cannot be used; says why.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._newest = self._read()
        self.context = self._read()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again; where they cannot be used, everything stays as it was.

        Raises:
            InvalidArgument: they cannot be used.
        """
        self._newest = self._read()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        # Called in every handshake, be there a server name in it or not.
        connection.context = self._newest

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # A passphrase would be asked for on the terminal, and the server would wait.
            context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise InvalidArgument(
                f"--tls-cert {self._certificate} and --tls-key {self._key} cannot be used: {error}."
            ) from None
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ssl.SSLError) as error:
                raise InvalidArgument(
                    f"--tls-client-ca {self._client_ca} cannot be used: {error}."
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _no_passphrase() -> str:
    raise ValueError("the private key has a passphrase; give one without")
