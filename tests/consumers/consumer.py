"""A program that watches, run unmodified on any stage; and scripts to change what it watches."""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conformance.client import ANSWER_SECONDS, Silence
from tests.conformance.play import PACE_SECONDS
from tests.conformance.watcher import Actor
from tests.stage import POLL_SECONDS, Stage

HERE = Path(__file__).parent


def program(name: str) -> list[str]:
    """The command that runs one of the programs beside this file."""
    return [sys.executable, str(HERE / f"{name}_program.py")]


class Consumer:
    """A running program whose output (both streams) is read line by line."""

    def __init__(self, command: Sequence[str], directory: str) -> None:
        self.lines: list[str] = []
        self._name = Path(command[0]).name
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
        )
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(ANSWER_SECONDS)
        self._reader.join(ANSWER_SECONDS)
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._queue.put(line.decode(errors="surrogateescape").rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, wanted: Callable[[str], bool], what: str) -> None:
        """Collect lines until one is ``wanted``, which is collected, too."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                line = self._queue.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise Silence(f"{self._name}: no {what}; so far: {self.lines}") from None
            if line is None:
                raise Silence(f"{self._name} has ended, without {what}: {self.lines}")
            self.lines.append(line)
            if wanted(line):
                return

    def wait_for_line(self, *parts: str) -> None:
        """Collect lines until one contains all ``parts``."""
        self.wait_for(lambda line: all(part in line for part in parts), " ".join(parts))

    def wait_until_ready(self, line: str = "ready") -> None:
        self.wait_for_line(line)
        self.lines.clear()

    def wait_for_watches(self, number: int) -> None:
        """Return when the program holds at least that many inotify watches."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.watches() < number:
            if time.monotonic() > deadline:
                raise Silence(f"{self._name} has {self.watches()} watches, not {number}")
            time.sleep(POLL_SECONDS)

    def watches(self) -> int:
        """The number of inotify watches that the program holds, by /proc/PID/fdinfo."""
        count = 0
        directory = Path(f"/proc/{self._process.pid}/fdinfo")
        for entry in os.listdir(directory):
            try:
                text = (directory / entry).read_text()
            except OSError:
                continue
            count += sum(line.startswith("inotify wd:") for line in text.splitlines())
        return count


def act(
    root: Path, script: str, consumer: Consumer | None = None, pace: float = PACE_SECONDS
) -> None:
    """Change ``root``, with a pause after each line; ``watches N`` waits for the consumer's.

    ``said WORD...`` waits until it has said a line with these in it.
    """
    actor = Actor(str(root))
    for line in script.splitlines():
        words = shlex.split(line)
        if not words:
            continue
        if words[0] == "watches":
            assert consumer
            consumer.wait_for_watches(int(words[1]))
        elif words[0] == "said":
            assert consumer
            consumer.wait_for_line(*words[1:])
        else:
            actor.do(words)
        time.sleep(pace)
    actor.release()


def prepared(stage: Stage, script: str) -> tuple[Path, str]:
    """A fresh directory that the script has filled: to act in, and as the client names it."""
    base = stage.fresh()
    act(stage.acting / base, script)
    stage.settle()
    return stage.acting / base, f"{stage.watching}/{base}"


def told(lines: Iterable[str], directory: str) -> list[str]:
    """Lines with the directory's name taken out, identical neighbours folded."""
    folded: list[str] = []
    for line in lines:
        short = line.replace(directory, "@")
        if not folded or folded[-1] != short:
            folded.append(short)
    return folded
