from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mounting.mounted import Area, temporary_area


@pytest.fixture
def area() -> Iterator[Area]:
    with temporary_area("scale", Area) as made:
        yield made
