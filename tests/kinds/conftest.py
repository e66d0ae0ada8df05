from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kinds.mounting import Mounting
from tests.mounting.mounted import Area


@pytest.fixture
def area() -> Iterator[Area]:
    home = Path(tempfile.mkdtemp(prefix="farwatch-kinds-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = Area(home)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def host(area: Area) -> Iterator[Mounting]:
    """What the test mounts; gone before the area is."""
    with Mounting() as mounting:
        yield mounting
