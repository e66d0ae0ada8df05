from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting.mounted import Area


@pytest.fixture
def area() -> Iterator[Area]:
    """A mount, which is there at the end as well, with no fault in its log."""
    home = Path(tempfile.mkdtemp(prefix="farwatch-loads-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = Area(home)
    try:
        with made.mounted() as process:
            yield made
            assert process.poll() is None, made.said()
            # That a step could not be replayed may be said; nothing else.
            said = [line for line in made.said().splitlines() if "not replayed" not in line]
            assert said == []
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)
