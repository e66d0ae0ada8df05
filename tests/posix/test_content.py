"""What is written into a file on a mount is what is read, in whichever ways."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.posix.conftest import Pair, Pairs
from tests.posix.exerciser import Exerciser
from tests.stage import FarwatchStage

pytestmark = pytest.mark.root

PLAIN, SET_ID = 0o644, 0o4755
"""What is read and written by the kernel itself (FUSE passthrough), and what is not."""


def _exercise(pair: Pair, seed: int, steps: int, *, direct: bool, mode: int) -> None:
    pair.mnt.mkdir()
    path = pair.mnt / "file"
    with closing(Exerciser(path, seed, direct=direct, mode=mode)) as exerciser:
        exerciser.run(steps)
        content = exerciser.content()
        assert path.read_bytes() == content
    assert (pair.src / "file").read_bytes() == content
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [PLAIN, SET_ID])
def test_one_file(pairs: Pairs, mode: int) -> None:
    _exercise(pairs.pair(), 1, 200, direct=False, mode=mode)


@pytest.mark.parametrize("mode", [PLAIN, SET_ID])
def test_one_file_past_the_cache(pairs: Pairs, mode: int) -> None:
    _exercise(pairs.pair(), 2, 150, direct=True, mode=mode)


@pytest.mark.long
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("mode", [PLAIN, SET_ID])
def test_one_file_for_long(pairs: Pairs, mode: int, direct: bool) -> None:
    for seed in range(10, 20):
        _exercise(pairs.pair(), seed, 3000, direct=direct, mode=mode)


@pytest.mark.long
@pytest.mark.parametrize("cache", ["auto", "never"])
def test_one_file_with_each_cache(cache: str) -> None:
    with FarwatchStage(["--cache", cache]) as stage:
        for seed in range(30, 33):
            name = f"exercised{seed}"
            pair = Pair(Path(stage.watching) / name, stage.acting / name, stage.outside / name)
            _exercise(pair, seed, 2000, direct=False, mode=PLAIN)
