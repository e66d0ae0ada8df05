"""A program of somebody's that does each call in two trees, and says what came of it.

    python -m tests.posix.actor UID GID[,GROUP...]

Started by root.  Each request on standard input and each answer on standard output is a
pickle: ("trees", one, other) opens two trees, ("call", name, arguments) answers with the two
outcomes, ("end",) closes what is open.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tests.posix.calls import Outcome, Tree, outcome

_PROJECT = Path(__file__).resolve().parents[2]
UMASK = 0o022


class User(NamedTuple):
    """Ids of a user; the first group is his own."""

    uid: int
    groups: tuple[int, ...]


class Actor:
    """The program, seen from the test."""

    def __init__(self, user: User, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.user = user
        self._in = process.stdin
        self._out = process.stdout

    def begin(self, one: Path, other: Path) -> None:
        """Work in these two directories from now on, with nothing open."""
        self._ask(("trees", os.fsencode(one), os.fsencode(other)))

    def call(self, name: str, *arguments: Any) -> tuple[Outcome, Outcome]:
        """The outcomes of a call in the one and in the other."""
        first, second = self._ask(("call", name, arguments))
        return first, second

    def end(self) -> None:
        """Close what is open."""
        self._ask(("end",))

    def _ask(self, request: tuple[Any, ...]) -> Any:
        pickle.dump(request, self._in)
        self._in.flush()
        return pickle.load(self._out)


@contextmanager
def acting(user: User) -> Iterator[Actor]:
    """The program of a user, for as long as it is needed."""
    groups = ",".join(map(str, user.groups))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.posix.actor", str(user.uid), groups],
        cwd=_PROJECT,
        env={**os.environ, "PYTHONPATH": f"{_PROJECT / 'src'}:{_PROJECT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield Actor(user, process)
        finally:
            process.kill()


def _become(uid: int, groups: Sequence[int]) -> None:
    os.setgroups(groups[1:])
    os.setresgid(groups[0], groups[0], groups[0])
    os.setresuid(uid, uid, uid)


def _answer(requests: BinaryIO, answers: BinaryIO) -> None:
    trees: list[Tree] = []
    while True:
        try:
            kind, *rest = pickle.load(requests)
        except EOFError:
            return
        answer: Any = None
        if kind == "trees":
            trees = [Tree(top) for top in rest]
            os.umask(UMASK)
        elif kind == "end":
            for tree in trees:
                tree.close_all()
        else:
            name, arguments = rest
            answer = [outcome(tree, name, arguments) for tree in trees]
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _become(int(sys.argv[1]), [int(group) for group in sys.argv[2].split(",")])
    _answer(sys.stdin.buffer, sys.stdout.buffer)
