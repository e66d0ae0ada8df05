from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.virtiofsd.daemon import Area


@pytest.fixture
def area() -> Iterator[Area]:
    """On the file system of /tmp, and with a path that is short enough for a socket's."""
    home = Path(tempfile.mkdtemp(prefix="farwatch-test-", dir="/tmp"))
    yield Area(home)
    shutil.rmtree(home)
