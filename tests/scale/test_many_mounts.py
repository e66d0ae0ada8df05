"""Many mounts at once, each with its own processes: of different directories, and of one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until
from tests.stage import farwatch_command

pytestmark = pytest.mark.root

FEW = pytest.param(3, id="3")
MANY = pytest.param(20, id="20", marks=pytest.mark.long)
CREATE, DELETE = Mask.CREATE, Mask.DELETE


@contextmanager
def all_mounted(area: Area, pairs: list[tuple[Path, Path]]) -> Iterator[None]:
    """Started at the same time; ended at the same time."""
    commands = [
        farwatch_command("mount", str(src), str(mnt), "--daemon", "--log-file", f"{mnt}.log")
        for src, mnt in pairs
    ]
    running = [
        subprocess.Popen(command, env=area.environment, cwd="/", stderr=subprocess.PIPE)
        for command in commands
    ]
    try:
        for process in running:
            with process:
                _, said = process.communicate(timeout=SECONDS * 10)
                assert (process.returncode, said) == (0, b"")
        yield
        ends = [
            subprocess.Popen(farwatch_command("unmount", str(mnt)), env=area.environment, cwd="/")
            for _, mnt in pairs
        ]
        assert [end.wait(SECONDS * 10) for end in ends] == [0] * len(pairs)
        wait_until(lambda: not area.processes(), "the end of all processes")
        assert not any(is_mounted(mnt) for _, mnt in pairs)
        for _, mnt in pairs:
            assert Path(f"{mnt}.log").read_text() == ""
    finally:
        for process in running:
            process.kill()
        for _, mnt in pairs:
            subprocess.run(["umount", "-l", mnt], check=False, stderr=subprocess.DEVNULL)
        area.clean()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_each_hears_its_own(area: Area, count: int) -> None:
    pairs = [(area.src / str(number), area.mnt / str(number)) for number in range(count)]
    for pair in pairs:
        for path in pair:
            path.mkdir()
    with all_mounted(area, pairs):
        ears = [Ear(mnt) for _, mnt in pairs]
        try:
            for turn in range(3):
                for number, (src, _) in enumerate(pairs):
                    (src / f"{turn}-{number}").touch()
            for number, ear in enumerate(ears):
                ear.hear(*((CREATE, f"{turn}-{number}") for turn in range(3)))
                assert len(ear.heard) == 3
        finally:
            for ear in ears:
                ear.close()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_all_of_one_directory(area: Area, count: int) -> None:
    """What is done through one of them is remote to all the others, and told once to each."""
    pairs = [(area.src, area.mnt / str(number)) for number in range(count)]
    for _, mnt in pairs:
        mnt.mkdir()
    with all_mounted(area, pairs):
        ears = [Ear(mnt) for _, mnt in pairs]
        try:
            for number, (_, mnt) in enumerate(pairs):
                (mnt / f"n{number}").mkdir()
            (area.src / "last").touch()
            made = [(CREATE | Mask.ISDIR, f"n{number}") for number in range(count)]
            # Whoever removes a name before it has heard that it was made does not hear that.
            for ear in ears:
                ear.hear_all(*made, (CREATE, "last"))
            for number in range(count):
                os.rmdir(pairs[number - 1][1] / f"n{number}")
            gone = [(DELETE | Mask.ISDIR, f"n{number}") for number in range(count)]
            for ear in ears:
                ear.hear_all(*made, (CREATE, "last"), *gone)
                assert len(ear.heard) == 2 * count + 1
        finally:
            for ear in ears:
                ear.close()


def test_two_at_one_place_at_the_same_time(area: Area) -> None:
    """One of them is refused, or both are there and go one after the other."""
    command = farwatch_command("mount", str(area.src), str(area.mnt), "--daemon")
    running = [
        subprocess.Popen(command, env=area.environment, cwd="/", stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    results = []
    for process in running:
        with process:
            _, said = process.communicate(timeout=SECONDS * 10)
            results.append((process.returncode, said))
    assert any(status == 0 for status, _ in results)
    for status, said in results:
        assert said.count(b"\n") == (1 if status else 0), said
    with Ear(area.mnt) as ear:
        (area.src / "x").touch()
        ear.hear((CREATE, "x"))
    while is_mounted(area.mnt):
        assert area.run("unmount", area.mnt).returncode == 0
    area.assert_nothing_left()
