"""Programs in a guest and on the host lock the same files (``--flock --posix-lock``)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.conftest import Images
from tests.guest.machine import Machine, Share
from tests.guest.programs import PROGRAM_SECONDS, Program
from tests.guest.stage import MNT, PYTHON, TAG, farwatch_daemon

pytestmark = [pytest.mark.root, pytest.mark.guest]

LOCKER = """
import fcntl, sys
file = open(sys.argv[1], "r+")
for line in sys.stdin:
    call, operation = line.split()
    try:
        getattr(fcntl, call)(file, eval(operation, vars(fcntl)))
        print("done", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""
EXCLUSIVE, SHARED = "LOCK_EX|LOCK_NB", "LOCK_SH|LOCK_NB"
CALLS = ("flock", "lockf")
"""lockf(3) is fcntl's lock of a process."""
HELD = "11"


@pytest.fixture(scope="module")
def machine(images: Images, export: Path) -> Iterator[Machine]:
    daemon = farwatch_daemon(export, "--flock", "--posix-lock")
    try:
        with Machine(images.of("6.12"), [Share(TAG, daemon)]) as machine:
            machine.mount(TAG, MNT)
            machine.put("/locker.py", LOCKER.encode())
            yield machine
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("export")
    (made / "f").write_text("0123456789")
    return made


@contextmanager
def locker(machine: Machine) -> Iterator[Program]:
    with machine.start([PYTHON, "-I", "-S", "/locker.py", f"{MNT}/f"]) as program:
        yield program


def do(program: Program, call: str, operation: str) -> str:
    program.write(f"{call} {operation}\n".encode())
    return said(program)


def said(program: Program) -> str:
    line = program.line(PROGRAM_SECONDS)
    assert line is not None, program.errors()
    return line.decode().strip()


def on_host(call: str, fd: int, operation: int) -> bool:
    try:
        is_end = operation == fcntl.LOCK_UN
        getattr(fcntl, call)(fd, operation if is_end else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("call", CALLS)
def test_one_and_the_same(machine: Machine, export: Path, call: str) -> None:
    with locker(machine) as one, locker(machine) as two, (export / "f").open("r+") as file:
        host = file.fileno()
        assert do(one, call, EXCLUSIVE) == "done"
        assert do(two, call, SHARED) == HELD
        assert not on_host(call, host, fcntl.LOCK_SH)
        assert do(one, call, SHARED) == "done"
        assert do(two, call, SHARED) == "done"
        assert on_host(call, host, fcntl.LOCK_SH)
        assert do(one, call, EXCLUSIVE) == HELD
        one.end_input()
        one.wait()
        two.end_input()
        two.wait()
        assert on_host(call, host, fcntl.LOCK_EX)


@pytest.mark.parametrize("call", CALLS)
def test_waiting_for_the_host(machine: Machine, export: Path, call: str) -> None:
    with locker(machine) as one, (export / "f").open("r+") as file:
        assert on_host(call, file.fileno(), fcntl.LOCK_EX)
        one.write(f"{call} LOCK_EX\n".encode())
        # The guest goes on meanwhile.
        machine.check(["sh", "-c", f"for i in 1 2 3 4 5; do touch {MNT}/other; done"])
        assert one.line(0) is None
        assert on_host(call, file.fileno(), fcntl.LOCK_UN)
        assert said(one) == "done"
        assert not on_host(call, file.fileno(), fcntl.LOCK_SH)
    os.unlink(export / "other")


@pytest.mark.parametrize("call", CALLS)
def test_waiting_for_each_other(machine: Machine, export: Path, call: str) -> None:
    with locker(machine) as one, locker(machine) as two, (export / "f").open("r+") as file:
        assert do(one, call, EXCLUSIVE) == "done"
        two.write(f"{call} LOCK_EX\n".encode())
        assert do(one, call, "LOCK_UN") == "done"
        assert said(two) == "done"
        assert not on_host(call, file.fileno(), fcntl.LOCK_SH)
