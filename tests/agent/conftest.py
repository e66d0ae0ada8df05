from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.running import build
from tests.mounting.mounted import Area


@pytest.fixture
def area() -> Iterator[Area]:
    home = Path(tempfile.mkdtemp(prefix="farwatch-agent-", dir="/tmp"))
    os.chmod(home, 0o755)
    made = Area(home)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as one file."""
    return build(tmp_path_factory.mktemp("agent"))
