from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.session.fsnotify.client import MERGED, REMOTE, Client
from tests.session.memory import MemoryDisk


@pytest.fixture
def client(disk: MemoryDisk) -> Iterator[Client]:
    """A client that has begun, and raises no events itself."""
    made = Client(disk)
    made.init()
    made.begin(REMOTE)
    yield made
    made.session.close()


@pytest.fixture
def merging(disk: MemoryDisk) -> Iterator[Client]:
    """A client that has begun, and raises the events of what it does itself."""
    made = Client(disk)
    made.init()
    made.begin(MERGED)
    yield made
    made.session.close()
