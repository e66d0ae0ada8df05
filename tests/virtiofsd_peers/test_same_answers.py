"""Debian's C virtiofsd and farwatch's: the same requests, the same answers, the same trees."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bench.daemons import C_VIRTIOFSD, FARWATCH, C, Daemon, serving
from tests.virtiofsd_peers.cases import CASES
from tests.virtiofsd_peers.differences import DIFFERENCES, TREE, Difference
from tests.virtiofsd_peers.guest import Answer, Guest, Player, Step

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def c_virtiofsd() -> None:
    if C_VIRTIOFSD.exists():
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"no {C_VIRTIOFSD}, and CI=true forbids skipping it", pytrace=False)
    pytest.skip(f"no {C_VIRTIOFSD} (Debian: qemu-system-common)")


def played(daemon: Daemon, directory: Path, steps: list[Step]) -> list[Answer]:
    """The answers, and behind them the tree that is left."""
    directory.mkdir()
    with serving(daemon, directory) as frontend:
        player = Player(Guest(frontend))
        player.start()
        answers = [player.play(step) for step in steps]
    return [*answers, tree(directory)]


def tree(top: Path) -> Answer:
    """All that is below a directory, in the words of this machine."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        name = os.fspath(path.relative_to(top))
        if stat.S_ISREG(status.st_mode):
            content: object = path.read_bytes()
        else:
            content = os.readlink(path) if path.is_symlink() else None
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (
            inodes.setdefault(status.st_ino, name),
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid, status.st_nlink, status.st_rdev),
            content,
            attributes,
        )
    return found


def differing(one: Answer, other: Answer) -> tuple[Answer, Answer]:
    """What of two answers is not the same: of two dictionaries only that."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        return (
            {name: one.get(name) for name in names},
            {name: other.get(name) for name in names},
        )
    return one, other


@pytest.mark.parametrize("case", CASES)
def test_same_answers(tmp_path: Path, case: str) -> None:
    by_c = played(C, tmp_path / "c", CASES[case])
    by_farwatch = played(FARWATCH, tmp_path / "farwatch", CASES[case])
    found = [
        Difference(step, *differing(one, other))
        for step, one, other in zip([*CASES[case], TREE], by_c, by_farwatch, strict=True)
        if one != other
    ]
    meant = DIFFERENCES.get(case, [])
    assert [each for each in found if each not in meant] == [], "answers that differ"
    assert [each for each in meant if each not in found] == [], "no difference any more"


def test_differences_are_of_cases() -> None:
    assert set(DIFFERENCES) <= set(CASES)
