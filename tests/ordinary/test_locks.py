"""Locks of an ordinary user's programs, on both sides of that user's mount."""

from __future__ import annotations

import sys

import pytest

from tests.ordinary.area import OrdinaryArea

pytestmark = pytest.mark.root

_PROGRAM = r"""
import fcntl, os, sys

mnt, src = (open(os.path.join(side, "f"), "a+") for side in sys.argv[1:3])

def refused(call, file):
    try:
        call(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False

def in_a_child(call, file):
    pid = os.fork()
    if pid == 0:
        os._exit(refused(call, file))
    return bool(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

for call in (fcntl.flock, fcntl.lockf):
    for one, other in ((mnt, src), (src, mnt)):
        call(one, fcntl.LOCK_EX)
        assert in_a_child(call, other), (call, one.name)
        ready, said = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(ready[1], b"x")
            call(other, fcntl.LOCK_EX)
            call(other, fcntl.LOCK_UN)
            os.write(said[1], b"y")
            os._exit(0)
        os.read(ready[0], 1)
        call(one, fcntl.LOCK_UN)
        assert os.read(said[0], 1) == b"y"
        os.waitpid(pid, 0)
        assert not in_a_child(call, one)
        call(one, fcntl.LOCK_UN)
print("all")
"""


def test_both_sides(area: OrdinaryArea) -> None:
    with area.mounted():
        command = [sys.executable, "-Ic", _PROGRAM, str(area.mnt), str(area.src)]
        done = area.run_as_user(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "all\n", "")
