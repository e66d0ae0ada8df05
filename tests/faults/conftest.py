from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faulty import FaultyArea


@pytest.fixture
def area() -> Iterator[FaultyArea]:
    home = Path(tempfile.mkdtemp(prefix="farwatch-faults-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = FaultyArea(home)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)
