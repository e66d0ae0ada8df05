from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting.mounted import VARIABLE
from tests.ordinary.area import OrdinaryArea
from tests.ordinary.user import GID, UID, environment, fuse_for_all


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
    home = Path(tempfile.mkdtemp(prefix="farwatch-ordinary-", dir="/tmp"))
    os.chmod(home, 0o755)
    os.chown(home, UID, GID)
    made = OrdinaryArea(home)
    made.environment = environment(**{VARIABLE: str(home)})
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(home, ignore_errors=True)
