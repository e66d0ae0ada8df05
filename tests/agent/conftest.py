from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.running import build
from tests.mounting.mounted import Area, temporary_area


@pytest.fixture
def area() -> Iterator[Area]:
    with temporary_area("agent", Area) as made:
        yield made


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as one file."""
    return build(tmp_path_factory.mktemp("agent"))
