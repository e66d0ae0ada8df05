"""A process of its own that locks files, as it is told to.

Each order is one line of JSON, and has one line for an answer: ``[errno, value]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.mounting.mounted import SECONDS, wait_until

_PROGRAM = r"""
import fcntl, json, os, signal, struct, sys

KINDS = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK, "none": fcntl.F_UNLCK}
OPERATIONS = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX, "none": fcntl.LOCK_UN}
NAMES = {number: name for name, number in KINDS.items()}
FLOCK = struct.Struct("@hhqqi0q")
OPEN = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
COMMANDS = {
    ("posix", False): fcntl.F_SETLK,
    ("posix", True): fcntl.F_SETLKW,
    ("ofd", False): fcntl.F_OFD_SETLK,
    ("ofd", True): fcntl.F_OFD_SETLKW,
}
files, children = {}, {}

def handler(*_):
    raise InterruptedError(4, "a signal")

def lock(name, sort, kind, start=0, length=0, wait=False):
    fd = files[name]
    if sort == "flock":
        fcntl.flock(fd, OPERATIONS[kind] | (0 if wait else fcntl.LOCK_NB))
        return None
    fcntl.fcntl(fd, COMMANDS[sort, wait], FLOCK.pack(KINDS[kind], 0, start, length, 0))

def ask(name, sort, kind, start=0, length=0):
    command = fcntl.F_GETLK if sort == "posix" else fcntl.F_OFD_GETLK
    answer = fcntl.fcntl(files[name], command, FLOCK.pack(KINDS[kind], 0, start, length, 0))
    found, _, start, length, pid = FLOCK.unpack(answer)
    return None if found == fcntl.F_UNLCK else [NAMES[found], start, length, pid]

def open_(name, path, mode="rw"):
    files[name] = os.open(path, OPEN[mode] | os.O_CREAT, 0o644)

def close(name):
    os.close(files.pop(name))

def dup(name, other):
    files[other] = os.dup(files[name])

def child(name):
    '''A child with the same descriptors, which is told what to do by ``tell``.'''
    orders, answers = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(orders[0], 0), os.dup2(answers[1], 1)
        os.close(orders[1]), os.close(answers[0])
        serve()
        os._exit(0)
    os.close(orders[0]), os.close(answers[1])
    children[name] = pid, os.fdopen(orders[1], "w", 1), os.fdopen(answers[0])
    return pid

def tell(name, *order):
    _, orders, answers = children[name]
    print(json.dumps(order), file=orders, flush=True)
    error, value = json.loads(answers.readline())
    if error:
        raise OSError(error, "the child's")
    return value

def end(name):
    pid, orders, _ = children.pop(name)
    orders.close()
    os.waitpid(pid, 0)

def write(name, offset, text):
    return os.pwrite(files[name], text.encode(), offset)

def read(name, offset, size):
    return os.pread(files[name], size, offset).decode()

def on_signal():
    signal.signal(signal.SIGUSR1, handler)

ORDERS = {
    "lock": lock, "ask": ask, "open": open_, "close": close, "dup": dup, "child": child,
    "tell": tell, "end": end, "write": write, "read": read, "on_signal": on_signal,
}

def serve():
    while True:
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                return
            line += byte
        what, *arguments = json.loads(line)
        try:
            answer = [0, ORDERS[what](*arguments)]
        except OSError as error:
            answer = [error.errno, None]
        os.write(1, json.dumps(answer).encode() + b"\n")

serve()
"""
_WAITING = {"72", "73"}
"""fcntl and flock on x86-64, and below on arm64, as /proc/PID/syscall has them."""
if os.uname().machine == "aarch64":
    _WAITING = {"25", "32"}


class Locker:
    """The process; ends when it is left."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-Ic", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
        )

    def finish(self) -> None:
        """Let it exit by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and the end."""
        self._process.kill()
        with self._process:
            pass

    def start(self, *order: object) -> None:
        """Begin with something that may have to wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def answer(self) -> tuple[int, Any]:
        """How what was started has ended: errno, value."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], SECONDS)[0], "no answer"
        number, value = json.loads(self._process.stdout.readline())
        return number, value

    def try_(self, *order: object) -> tuple[int, Any]:
        """Do something: errno, value."""
        self.start(*order)
        return self.answer()

    def do(self, *order: object) -> Any:
        """Do something that succeeds; its value."""
        number, value = self.try_(*order)
        assert not number, (order, os.strerror(number))
        return value

    def has_answered(self) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def wait_until_blocked(self) -> None:
        """Returns when it waits for a lock, in the kernel."""
        wait_until(self._is_blocked, "the process waits for a lock")
        assert not self.has_answered()

    def _is_blocked(self) -> bool:
        with contextlib.suppress(OSError):
            number = Path(f"/proc/{self.pid}/syscall").read_text().split()[0]
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            return number in _WAITING and state == "S"
        return False

    def signal(self, number: int = signal.SIGUSR1) -> None:
        os.kill(self.pid, number)
