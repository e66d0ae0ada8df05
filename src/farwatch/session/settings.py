"""What a session is allowed to do, decided once by whoever starts the server."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """Options of a session.

    ``generation``   of every node but the root: another one for each start of a server
    ``hidden_name``  of the hidden directory: nobody must be able to guess it
    ``passthrough``  whether file I/O may bypass the server (root, Linux 6.9)
    ``max_write``    bytes of the largest WRITE; the transport's buffer is that and a page
    """

    generation: int
    hidden_name: bytes
    passthrough: bool = False
    max_write: int = 1 << 20
