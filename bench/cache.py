"""What is cached: a tree that was read before is read again, natively and with each --cache."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.figures import Spread, spread
from bench.sides import Sides
from farwatch.cli.demo.stage import farwatch_mount
from farwatch.session.settings import Cache

_DIRECTORIES = 50
_REST_SECONDS = 1.5
"""Before each round: what is believed for a second is asked for again."""
_PASSES = 5

Act = Callable[[Path, list[str]], int]
"""Does it once to a tree with these files; how many times that was."""


def _git_status(tree: Path, names: list[str]) -> int:
    _run("git", "-C", str(tree), "status", "--porcelain")
    return 1


def _find(tree: Path, names: list[str]) -> int:
    _run("find", str(tree), "-size", "+1M")
    return 1


def _stat(tree: Path, names: list[str]) -> int:
    for name in names:
        os.stat(tree / name)
    return len(names)


def _stat_again(tree: Path, names: list[str]) -> int:
    return sum(_stat(tree, names) for _ in range(_PASSES))


def _absent(tree: Path, names: list[str]) -> int:
    for name in names:
        os.path.lexists(tree / f"{name}.absent")
    return len(names)


WORK: dict[str, Act] = {
    "git status": _git_status,
    "find -size": _find,
    "stat, once": _stat,
    "stat, again and again": _stat_again,
    "names that are not there": _absent,
}


class Row(NamedTuple):
    """One piece of work, in microseconds: a command, or one stat."""

    work: str
    files: int
    native: Spread
    coherent: Spread
    auto: Spread
    never: Spread

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Of coherent, auto and never to native."""
        native = self.native.median
        return (
            self.coherent.median / native,
            self.auto.median / native,
            self.never.median / native,
        )


def measure(sides: Sides, files: int, rounds: int) -> Iterator[Row]:
    """Each piece of work on one tree of ``files`` files, reached in four ways by turns."""
    tree = sides.native.outside / "cached"
    names = _make(tree, files)
    with ExitStack() as stack:
        ways = {"native": tree}
        for cache in Cache:
            ways[cache.value] = mountpoint = sides.native.outside / f"mnt-{cache.value}"
            mountpoint.mkdir()
            stack.enter_context(farwatch_mount(tree, mountpoint, "--cache", cache.value))
        for work, act in WORK.items():
            times: dict[str, list[float]] = {way: [] for way in ways}
            for path in ways.values():
                act(path, names)
            for _ in range(rounds):
                time.sleep(_REST_SECONDS)
                for way, path in ways.items():
                    times[way].append(_timed(act, path, names))
            found = {way: spread(taken) for way, taken in times.items()}
            yield Row(work, files, **found)


def _timed(act: Act, path: Path, names: list[str]) -> float:
    started = time.perf_counter_ns()
    count = act(path, names)
    return (time.perf_counter_ns() - started) / count / 1000


def _make(tree: Path, files: int) -> list[str]:
    """A clone of files that are all known to git."""
    names = [f"d{index % _DIRECTORIES}/f{index}" for index in range(files)]
    for number in range(min(files, _DIRECTORIES)):
        (tree / f"d{number}").mkdir(parents=True)
    for name in names:
        (tree / name).write_text(name)
    git = ("git", "-C", str(tree), "-c", "user.name=bench", "-c", "user.email=bench@invalid")
    _run(*git, "init", "-q")
    _run(*git, "add", "-A")
    _run(*git, "commit", "-q", "-m", "all")
    return names


def _run(*command: str) -> None:
    # safe.directory: the tree is reached by several paths, and git looks at whose they are.
    environment = {**os.environ, "GIT_CONFIG_COUNT": "1"}
    environment |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
