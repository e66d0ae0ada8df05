"""What is another one at each start of a server."""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

_BASE_BITS = 30
_BASE_SHIFT = 32
"""2^32 ids from one base to the next: more than a server gives out in its life."""


class Start(NamedTuple):
    """``generation`` of nodes, the hidden directory's name, and where ids begin."""

    generation: int
    hidden_name: bytes
    base: int


def this_start() -> Start:
    """Values that no earlier server has had, nor anybody can guess."""
    return Start(
        int(time.time()) & 0xFFFF_FFFF,
        b".farwatch-" + secrets.token_hex(8).encode(),
        (1 + secrets.randbits(_BASE_BITS)) << _BASE_SHIFT,
    )
