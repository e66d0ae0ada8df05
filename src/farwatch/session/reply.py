"""The bytes of a reply: the header, and what follows it."""

from __future__ import annotations

from collections.abc import Sequence

from farwatch.abi import fuse
from farwatch.session.request import Payload, Placed

Reply = Sequence[Payload]
"""The buffers of one reply, to be written in one go."""


def replied(unique: int, payload: Payload | Placed) -> Reply:
    """The reply to a request that was done."""
    if isinstance(payload, Placed):
        return (fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size + payload.size, 0, unique),)
    return (fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size + len(payload), 0, unique), payload)


def failed(unique: int, number: int) -> Reply:
    """The reply to a request that failed with this errno."""
    return (fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size, -number, unique),)
