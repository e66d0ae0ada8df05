from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mounting.mounted import Area, temporary_area


@pytest.fixture
def area() -> Iterator[Area]:
    """A mount, which is there at the end as well, with no fault in its log."""
    with temporary_area("loads", Area) as made, made.mounted() as process:
        yield made
        assert process.poll() is None, made.said()
        assert made.said() == ""
