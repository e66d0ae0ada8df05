"""The mount on which POSIX is checked, and a plain directory beside it, open to all users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.posix.actor import Actor, acting
from tests.posix.drawn import USERS
from tests.stage import FarwatchStage

_counter = count()


class Pair(NamedTuple):
    """One directory name below a mount, in what the mount shows, and in a plain directory."""

    mnt: Path
    src: Path
    plain: Path


class Pairs:
    """Where pairs are made."""

    def __init__(self, stage: FarwatchStage) -> None:
        self._stage = stage

    def pair(self) -> Pair:
        """Three paths for the tops of trees; the directories are still to be made."""
        name = f"posix{next(_counter)}"
        stage = self._stage
        return Pair(Path(stage.watching) / name, stage.acting / name, stage.outside / name)


@pytest.fixture
def pairs(mounted: FarwatchStage) -> Pairs:
    mounted.acting.parent.chmod(0o755)
    return Pairs(mounted)


@pytest.fixture(scope="session")
def actors() -> Iterator[list[Actor]]:
    with ExitStack() as stack:
        yield [stack.enter_context(acting(user)) for user in USERS]


@pytest.fixture
def tops(pairs: Pairs) -> tuple[Path, Path]:
    """A directory on a mount and a plain one, which must be alike."""
    pair = pairs.pair()
    pair.mnt.mkdir()
    pair.plain.mkdir()
    return pair.mnt, pair.plain
