"""Holds a mount's processes up at random moments, so that every order of things comes about.

Left alone, server and agent keep up, and an order in which one of them loses the processor
at a bad moment comes once in thousands of runs.  Here it comes in each: a process is
stopped for up to some milliseconds, then another one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from types import TracebackType
from typing import Self

from tests.stage import FarwatchStage

_STOPPED_SECONDS = (0.0005, 0.002, 0.006, 0.015)
_RUNNING_SECONDS = (0.001, 0.004, 0.02)


class HeldUp:
    """While this is entered, the stage's processes are stopped and continued at random."""

    def __init__(self, stage: FarwatchStage, seed: str) -> None:
        self._pids = stage.processes()
        self._random = random.Random(seed)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="held up")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        # An agent that is started meanwhile is left alone, and one that ends is no error.
        while not self._is_over.is_set():
            pid = self._random.choice(self._pids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                try:
                    self._is_over.wait(self._some(_STOPPED_SECONDS))
                finally:
                    os.kill(pid, signal.SIGCONT)
            self._is_over.wait(self._some(_RUNNING_SECONDS))

    def _some(self, scale: tuple[float, ...]) -> float:
        return self._random.choice(scale) * self._random.random()
