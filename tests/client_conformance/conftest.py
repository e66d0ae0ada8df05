"""The stages that the tests of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client_conformance.stage import ClientStage, Mode, Transport
from tests.kept import Kept


class Clients(Kept[tuple[Transport, Mode, bool], ClientStage]):
    """Long-lived servers, each with a client."""

    def __init__(self) -> None:
        super().__init__(lambda key: ClientStage(key[0], key[1], reading=key[2]))

    def stage(self, transport: Transport, mode: Mode, *, reading: bool = False) -> ClientStage:
        """The client on which reading kinds are never, or always, in force (see ``stage``)."""
        return self.of((transport, mode, reading))


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    """Clients for a module's tests.  Their servers need root: mark the test so.

    Not for the session's: each server hears of all that later tests do to the file system.
    """
    with Clients() as kept:
        yield kept
