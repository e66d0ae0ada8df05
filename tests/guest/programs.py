"""The host's end of the port: programs that run in the guest."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests.guest.inside.wire import CHUNK, GREETING, NUMBER, STATUS, Decoder, Frame, Kind

PROGRAM_SECONDS = 60.0
"""How long a program may take that is waited for.  Only a failure lasts that long."""

TIMEVAL = struct.Struct("ll")
"""struct timeval, for SO_SNDTIMEO (socket(7))."""


class GuestSilent(AssertionError):
    """The guest has ended, or does not answer in time."""


class Completed(NamedTuple):
    """A program that has ended."""

    status: int
    """Its exit status, or minus the number of the signal that has ended it."""
    stdout: bytes
    stderr: bytes


class Program:
    """A program that runs, or has run, in the guest.  Leaving the context kills it."""

    def __init__(self, commands: Commands, number: int, name: str) -> None:
        self.name = name
        self._commands = commands
        self._number = number
        self._changed = threading.Condition()
        self._said = {Kind.OUTPUT: bytearray(), Kind.ERRORS: bytearray()}
        self._status: int | None = None
        self._lost = ""

    def write(self, data: bytes) -> None:
        """Pass ``data`` to the program's standard input.  Raises GuestSilent."""
        for at in range(0, len(data), CHUNK):
            self._commands.send(Frame(Kind.INPUT, self._number, data[at : at + CHUNK]))

    def end_input(self) -> None:
        """Close the program's standard input, once it has taken what was written."""
        self._commands.send(Frame(Kind.END_OF_INPUT, self._number, b""))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and to what it has started."""
        self._commands.send(Frame(Kind.SIGNAL, self._number, NUMBER.pack(number)))

    def read(self, seconds: float) -> bytes | None:
        """What has come from standard output: b"" at its end, None if nothing comes in time."""
        with self._changed:
            said = self._said[Kind.OUTPUT]
            self._changed.wait_for(lambda: said or self._is_over, seconds)
            data = bytes(said)
            said.clear()
            if not data and not self._is_over:
                return None
        return data

    def line(self, seconds: float) -> bytes | None:
        """The next line of standard output, whole; what is left at its end, None as above."""
        with self._changed:
            said = self._said[Kind.OUTPUT]
            self._changed.wait_for(lambda: b"\n" in said or self._is_over, seconds)
            if b"\n" not in said and not self._is_over:
                return None
            end = said.find(b"\n") + 1 or len(said)
            line = bytes(said[:end])
            del said[:end]
        return line

    def wait(self, seconds: float = PROGRAM_SECONDS) -> Completed:
        """Return when it has ended, with what has not been read.  Raises GuestSilent."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_over, seconds):
                raise GuestSilent(
                    f"{self.name}: still running after {seconds:.0f} s; {self._so_far()}"
                )
            if self._status is None:
                raise GuestSilent(f"{self.name}: {self._lost}; {self._so_far()}")
            out, errors = (bytes(self._said[kind]) for kind in (Kind.OUTPUT, Kind.ERRORS))
        return Completed(self._status, out, errors)

    def is_running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        with self._changed:
            return not self._is_over

    def errors(self) -> str:
        """What has come from standard error so far."""
        with self._changed:
            return self._said[Kind.ERRORS].decode(errors="replace")

    def _so_far(self) -> str:
        out, errors = (bytes(self._said[kind]) for kind in (Kind.OUTPUT, Kind.ERRORS))
        return f"stdout {out[-1000:]!r}, stderr {errors[-1000:]!r}"

    @property
    def _is_over(self) -> bool:
        return self._status is not None or bool(self._lost)

    def take(self, frame: Frame) -> None:
        """A frame about this program has come (for Commands)."""
        with self._changed:
            if frame.kind is Kind.EXIT:
                self._status = STATUS.unpack(frame.data)[0]
            elif frame.kind in self._said:
                self._said[frame.kind] += frame.data
            self._changed.notify_all()

    def lose(self, why: str) -> None:
        """Nothing more will come (for Commands)."""
        with self._changed:
            self._lost = self._lost or why
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(GuestSilent):
            if self.is_running():
                self.signal(signal.SIGKILL)
                self.wait()


class Commands:
    """Both directions of the port.  Owns the socket, and a thread that reads it."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port
        # Of sending only: the thread reads for as long as the guest lives.
        limit = TIMEVAL.pack(int(PROGRAM_SECONDS), 0)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._decoder = Decoder()
        self._programs: dict[int, Program] = {}
        self._numbers = itertools.count(1)
        self._over = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether the guest's server has greeted within ``seconds``, or False at its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._decoder.greeted or self._over, seconds)
            return self._decoder.greeted and not self._over

    def expect_start(self) -> None:
        """The guest starts anew: what it was running is lost, and it will greet again."""
        with self._changed:
            self._decoder = Decoder()
            self._lose_all("the guest was reset")

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
    ) -> Program:
        """Start a program.  Raises GuestSilent; that it cannot be started its status tells."""
        request = {"argv": list(argv), "env": dict(environment or {}), "cwd": directory}
        with self._changed:
            number = next(self._numbers)
            program = Program(self, number, argv[0])
            self._programs[number] = program
        self.send(Frame(Kind.START, number, json.dumps(request).encode()))
        return program

    def send(self, frame: Frame) -> None:
        """Send one frame.  Raises GuestSilent if the guest takes none for a minute."""
        try:
            with self._sending:
                self._port.sendall(frame.encode())
        except OSError as error:
            raise GuestSilent(f"the guest takes no commands: {error}") from None

    def _receive(self) -> None:
        while True:
            try:
                data = os.read(self._port.fileno(), CHUNK)
            except OSError:
                data = b""
            if not data:
                break
            self._take(data)
        with self._changed:
            self._over = True
            self._lose_all("the guest has ended")

    def _take(self, data: bytes) -> None:
        with self._changed:
            before = self._decoder.greeted
            frames = self._decoder.feed(data)
            if self._decoder.greeted and not before:
                with self._sending:
                    self._port.sendall(GREETING)
                self._changed.notify_all()
            for frame in frames:
                program = self._programs.get(frame.program)
                if frame.kind is Kind.EXIT:
                    self._programs.pop(frame.program, None)
                if program:
                    program.take(frame)

    def _lose_all(self, why: str) -> None:
        for program in self._programs.values():
            program.lose(why)
        self._programs.clear()
        self._changed.notify_all()

    def close(self) -> None:
        """Hang up, and end the thread."""
        with contextlib.suppress(OSError):
            self._port.shutdown(socket.SHUT_RDWR)
        self._thread.join(PROGRAM_SECONDS)
        self._port.close()
