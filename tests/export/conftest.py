from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.exporting import Stage, exported, file_system


@pytest.fixture(params=["disk", "tmpfs"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with file_system(request.param, tmp_path) as directory:
        yield directory


@pytest.fixture
def stage(home: Path) -> Iterator[Stage]:
    with exported(home) as made:
        yield made
