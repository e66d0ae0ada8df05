from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.mounting.mounted import temporary_area
from tests.ordinary.area import OrdinaryArea
from tests.ordinary.user import fuse_for_all


@pytest.fixture(scope="session", autouse=True)
def fuse() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    with fuse_for_all():
        yield


@pytest.fixture
def area() -> Iterator[OrdinaryArea]:
    """SRC and MNT that are the user's."""
    with temporary_area("ordinary", OrdinaryArea) as made:
        yield made
