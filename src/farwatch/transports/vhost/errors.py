"""What can be wrong with what the other side says."""

from __future__ import annotations


class ProtocolError(Exception):
    """A well-formed message that cannot be obeyed, now or at all."""


class PeerGone(Exception):
    """The other end of the socket was closed."""


class BadAddress(Exception):
    """An address, or what follows it, is outside of the shared memory."""

    def __init__(self, space: str, address: int, length: int) -> None:
        super().__init__(f"{length:#x} bytes at {space} address {address:#x}")


class BrokenRing(Exception):
    """The driver has put something into its ring that cannot be: the ring is stopped."""
