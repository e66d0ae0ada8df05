"""The watching program of the suite, with ``farwatch.client`` in the place of a kernel.

    python -m tests.client_conformance.watcher URL MODE ROOT

It speaks the protocol of ``tests.conformance.watcher``, whose loop and actor it uses, on the
system calls of ``system``.  ``ROOT`` is the directory of the export that the requests' paths
are relative to.

An event also says whose doing it was: ``"source": 2, "client": 0``; and one request more asks
for the number that this client has at the server: ``{"n": 1, "do": "number"}``.
"""

from __future__ import annotations

import sys

from farwatch.client import FileSystem
from tests.client_conformance.system import ClientSystem, Loop
from tests.conformance.watcher import Program


class ClientProgram(Program):
    """The loop of the native one, with a question more."""

    def __init__(self, root: str, system: ClientSystem) -> None:
        super().__init__(root, system)
        self._client = system

    def do_number(self, _: dict[str, object]) -> str:
        """The number that this client has at the server."""
        return str(self._client.number)


def main(url: str, mode: str, root: str) -> None:
    with Loop() as loop:
        files = loop.run(connected(url, mode))
        ClientProgram(root, ClientSystem(loop, files)).run()
        loop.run(files.close())


async def connected(url: str, mode: str) -> FileSystem:
    """The client, which belongs to the loop that this runs in."""
    files = FileSystem(url, mode=mode)
    await files.connect()
    return files


if __name__ == "__main__":
    main(*sys.argv[1:])
