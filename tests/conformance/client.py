"""The harness's end of the pipe to the watching program (``watcher.py``)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

PROGRAM = Path(__file__).with_name("watcher.py")
PROJECT = Path(__file__).resolve().parent.parent.parent
ANSWER_SECONDS = 20.0
"""How long the watching program may take to answer, or an event to arrive.
Only a failure lasts that long."""


class Silence(AssertionError):
    """The watching program did not answer, or an event did not arrive, in time."""


class Refused(Exception):
    """A request failed in the client; ``name`` is the errno's."""

    def __init__(self, name: str, about: str) -> None:
        super().__init__(about)
        self.name = name


class RawEvent(NamedTuple):
    """One event as the watching program read it."""

    group: str
    watch: str
    mask: int
    cookie: int
    name: str
    at: int
    """CLOCK_MONOTONIC of the client when it read the event, nanoseconds."""
    source: int = 0
    """Whose doing it was, where the client is told: ``abi.fsnotify.Source``.  inotify does not."""
    client: int = 0
    """Which of a server's clients that was."""


class Client(ABC):
    """A running watching program, wherever it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[RawEvent] = []
        self._rest = b""
        self._number = 0
        self._replies: dict[int, dict[str, str]] = {}
        self._sentinels: set[tuple[str, str]] = set()

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Pass ``data`` to the program's standard input.  Raises Silence if it has ended."""

    @abstractmethod
    def _receive(self, seconds: float) -> bytes | None:
        """What comes from its standard output: b"" at the end, None if nothing in time."""

    @abstractmethod
    def close(self) -> None:
        """End the program."""

    def ask(self, do: str, **arguments: object) -> str:
        """Send one request and return its answer.

        Raises Refused when the client's system call failed, Silence when there
        is no answer within ANSWER_SECONDS.
        """
        return self.answer(self.send(do, **arguments))

    def send(self, do: str, **arguments: object) -> int:
        """Send one request without waiting; returns the number to ask ``answer`` for."""
        self._number += 1
        message = {"n": self._number, "do": do, **arguments}
        self._write(json.dumps(message).encode() + b"\n")
        return self._number

    def answer(self, number: int, seconds: float = ANSWER_SECONDS) -> str:
        deadline = time.monotonic() + seconds
        while number not in self._replies:
            self._read(deadline, "an answer")
        reply = self._replies.pop(number)
        if "error" in reply:
            raise Refused(reply["error"], reply["about"])
        return reply["answer"]

    def wait_for_sentinel(self, name: str, groups: Sequence[str]) -> None:
        """Return when every group has heard of the sentinel file ``name``."""
        wanted = {(group, name) for group in groups}
        deadline = time.monotonic() + ANSWER_SECONDS
        while not wanted <= self._sentinels:
            missing = ", ".join(sorted(group for group, _ in wanted - self._sentinels))
            self._read(deadline, f"the event of sentinel {name} (group {missing})")
        self._sentinels -= wanted

    def forget(self) -> None:
        """Drop what has been collected."""
        self.events.clear()
        self._sentinels.clear()

    def _read(self, deadline: float, what: str) -> None:
        left = deadline - time.monotonic()
        data = self._receive(left) if left > 0 else None
        if data is None:
            raise Silence(f"{self.name}: {what} did not come within {ANSWER_SECONDS:.0f} s")
        if not data:
            raise Silence(f"{self.name}: the watching program ended while {what} was awaited")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, object]) -> None:
        if "n" in message:
            self._replies[int(str(message["n"]))] = {
                key: str(value) for key, value in message.items()
            }
        elif message["watch"] == "sentinel":
            self._sentinels.add((str(message["group"]), str(message["name"])))
        else:
            numbers = {key: int(str(message[key])) for key in ("mask", "cookie", "at")}
            words = {key: str(message[key]) for key in ("group", "watch", "name")}
            numbers |= {key: int(str(message.get(key, 0))) for key in ("source", "client")}
            self.events.append(RawEvent(**words, **numbers))  # type: ignore[arg-type]


class LocalClient(Client):
    """The watching program as a child process on this machine."""

    def __init__(
        self,
        watching: str,
        name: str,
        command: Sequence[str] = (sys.executable, str(PROGRAM)),
        log: Path | None = None,
    ) -> None:
        """``command`` is the program, which is told ``watching``; ``log`` gets its errors."""
        with contextlib.ExitStack() as stack:
            self._process = subprocess.Popen(
                [*command, watching],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("ab")) if log else None,
                bufsize=0,
                cwd=PROJECT,
            )
        super().__init__(name)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(data)
        except BrokenPipeError:
            raise Silence(f"{self.name}: the watching program has ended") from None

    def _receive(self, seconds: float) -> bytes | None:
        answers = self._process.stdout
        assert answers
        if not select.select([answers], [], [], seconds)[0]:
            return None
        return os.read(answers.fileno(), 1 << 20)

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the program; SIGKILL, for it may hang in the mount under test."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            raise Silence(f"{self.name}: the watching program cannot be killed") from None
