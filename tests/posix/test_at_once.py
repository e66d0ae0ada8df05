"""Several programs in one tree of a mount at once.

Nobody is told what no file system says, and what must come out right does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.posix.conftest import Pairs
from tests.posix.trees import differences
from tests.posix.worker import LINE, WHOLE
from tests.stage import PROJECT

pytestmark = pytest.mark.root

WORKERS = 8
_SECONDS = 1500.0


def _work(top: Path, steps: int) -> list[tuple[int, int]]:
    """What each of the programs says: lines appended, and how often it has counted."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.posix.worker", str(top), str(number), str(steps)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WORKERS)
    ]
    try:
        said = [process.communicate(timeout=_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, error) in zip(processes, said, strict=True):
        assert process.returncode == 0, error
    counts = [tuple(map(int, out.split())) for out, _ in said]
    return [(lines, counted) for lines, counted in counts]


def _check(pairs: Pairs, steps: int) -> None:
    pair = pairs.pair()
    pair.mnt.mkdir()
    (pair.mnt / "shared").mkdir()
    (pair.mnt / "current").write_bytes(b"a" * WHOLE)
    counts = _work(pair.mnt, steps)
    log = (pair.mnt / "log").read_bytes()
    lines = [log[start : start + LINE] for start in range(0, len(log), LINE)]
    whose = Counter(int(line.split()[0]) for line in lines)
    assert whose == Counter({number: count for number, (count, _) in enumerate(counts)})
    assert len(set(lines)) == len(lines)
    assert int((pair.mnt / "counter").read_bytes()) == sum(counted for _, counted in counts)
    assert not (pair.mnt / "lock").exists()
    assert not list(differences((pair.mnt, pair.src)))


def test_eight_programs(pairs: Pairs) -> None:
    _check(pairs, 150)


@pytest.mark.long
def test_eight_programs_for_long(pairs: Pairs) -> None:
    _check(pairs, 10_000)
