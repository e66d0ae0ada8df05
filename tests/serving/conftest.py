from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.area import Area


@pytest.fixture
def area(tmp_path: Path) -> Area:
    tmp_path.chmod(0o755)
    return Area(tmp_path)
