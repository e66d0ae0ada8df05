from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.faulty import FaultyArea
from tests.mounting.mounted import temporary_area


@pytest.fixture
def area() -> Iterator[FaultyArea]:
    with temporary_area("faults", FaultyArea) as made:
        yield made
