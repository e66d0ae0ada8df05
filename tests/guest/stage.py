"""A stage whose watching side is a guest: the changes on the host, the watcher in the guest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from tests.conformance.client import Client, Silence
from tests.guest import initramfs
from tests.guest.initramfs import Image
from tests.guest.machine import Machine, Share
from tests.guest.programs import GuestSilent, Program
from tests.guest.virtiofsd import Daemon, c_virtiofsd, farwatch_virtiofsd
from tests.stage import (
    POLL_SECONDS,
    READING_SECONDS,
    Stage,
    StageError,
    fanotify_masks,
    farwatch_command,
    farwatch_environment,
)

TAG = "shared"
MNT = "/mnt"
PYTHON = "/usr/bin/python3"
AGENT = (PYTHON, initramfs.AGENT)
WATCHER = "/guest/tests/conformance/watcher.py"


class GuestClient(Client):
    """The watching program in a guest."""

    def __init__(self, machine: Machine, watching: str, name: str) -> None:
        super().__init__(name)
        self._program = machine.start([PYTHON, WATCHER, watching])

    def _write(self, data: bytes) -> None:
        if not self._program.is_running():
            raise Silence(f"{self.name}: the watching program has ended: {self._program.errors()}")
        try:
            self._program.write(data)
        except GuestSilent as silent:
            raise Silence(f"{self.name}: {silent}") from None

    def _receive(self, seconds: float) -> bytes | None:
        return self._program.read(seconds)

    def close(self) -> None:
        with self._program:
            pass


class GuestStage(Stage):
    """A host's directory, and the same by virtiofs in a guest.

    ``daemon`` makes the daemon for that directory.  One that stage knows how to tell of
    changes is ``farwatch_stage``; behind Debian's the guest hears of none.
    """

    name = "guest"
    paces = (0.01, 0.06, 0.3)

    def __init__(
        self,
        image: Image,
        daemon: Callable[[Path], Daemon] = c_virtiofsd,
        *,
        with_agent: bool = False,
        reading: bool = False,
    ) -> None:
        super().__init__(reading=reading)
        self._image = image
        self._make_daemon = daemon
        self._with_agent = with_agent
        self._parts = contextlib.ExitStack()
        self.agent: Program | None = None

    @property
    def watching(self) -> str:
        return MNT

    def _start(self) -> None:
        self.daemon = self._make_daemon(self.acting)
        self._parts.callback(self.daemon.close)
        machine = Machine(self._image, [Share(TAG, self.daemon)])
        self.machine = self._parts.enter_context(machine)
        self.machine.mount(TAG, MNT)
        if self._with_agent:
            self.agent = self.machine.start([*AGENT, MNT])
            self._await_agent()

    def _await_agent(self) -> None:
        """Until a change on the host has been heard of in the guest."""
        try:
            self.settle()
        except Silence as silent:
            raise StageError(f"{silent}\n{self.log()}") from None

    def _stop(self) -> None:
        if self.agent and not self.agent.is_running():
            # Noted in the log; the tests that need it have failed already.
            self.agent = None
        self._parts.close()

    def _make_client(self) -> Client:
        return GuestClient(self.machine, self.watching, self.name)

    def alive(self) -> bool:
        agent_lives = self.agent is not None and self.agent.is_running()
        return (
            self.machine.is_running()
            and self.daemon.is_running()
            and agent_lives is self._with_agent
        )

    def log(self) -> str:
        said = f"--- agent\n{self.agent.errors()}" if self.agent else ""
        return f"{self.machine.log()}\n{said}"

    def source_mask(self) -> int:
        """The mask of the daemon's fanotify mark, 0 if there is none."""
        masks = (mask for pid in self.daemon.processes() for mask in fanotify_masks(pid))
        return max(masks, default=0)

    def wait_for_reading(self, mask: int) -> None:
        if not self._with_agent:
            return
        deadline = time.monotonic() + READING_SECONDS
        while mask & ~self.source_mask():
            if time.monotonic() > deadline:
                now = f"the source's mask is {self.source_mask():#x}"
                raise StageError(f"{now}; a watch wants kinds {mask:#x}\n{self.log()}")
            time.sleep(POLL_SECONDS)


def farwatch_stage(image: Image, *, reading: bool = False) -> GuestStage:
    """``farwatch virtiofsd`` on the host, ``farwatch agent`` in the guest."""
    return GuestStage(image, farwatch_daemon, with_agent=True, reading=reading)


def farwatch_daemon(directory: Path, *options: str) -> Daemon:
    """``farwatch virtiofsd`` as this tree has it."""
    command = farwatch_command("virtiofsd", "--xattr", *options)
    return farwatch_virtiofsd(command, farwatch_environment(), directory)
