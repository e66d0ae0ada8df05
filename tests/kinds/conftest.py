from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kinds.mounting import Mounting
from tests.mounting.mounted import Area, temporary_area


@pytest.fixture
def area() -> Iterator[Area]:
    with temporary_area("kinds", Area) as made:
        yield made


@pytest.fixture
def host(area: Area) -> Iterator[Mounting]:
    """What the test mounts; gone before the area is."""
    with Mounting() as mounting:
        yield mounting
