from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting.mounted import Area


@pytest.fixture(scope="module")
def area() -> Iterator[Area]:
    """One mount for all tests of a file."""
    home = Path(tempfile.mkdtemp(prefix="farwatch-files-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = Area(home)
    try:
        with made.mounted():
            yield made
            assert made.said() == ""
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)
