"""What can go wrong in the protocol itself, apart by whose fault it is (as h11 does)."""

from __future__ import annotations


class LocalProtocolError(Exception):
    """This side tried to send something that the protocol does not allow; nothing was sent."""


class MessageTooLarge(LocalProtocolError):
    """This side tried to send a message that is longer than the peer accepts."""


class RemoteProtocolError(Exception):
    """The peer sent something that the protocol does not allow; the connection is over.

    Attributes:
        messages: what was received, whole and well formed, before the fault. Kept so that what a
            peer achieves does not depend on how the network cut its bytes into chunks.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.messages: list[object] = []
