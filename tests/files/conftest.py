from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mounting.mounted import Area, quiet_area


@pytest.fixture(scope="module")
def area() -> Iterator[Area]:
    """One mount for all tests of a file."""
    with quiet_area("files") as made:
        yield made
