"""Runs programs in the guest for whoever is at the other end of the port (see ``wire``).

    python3 -m tests.guest.inside.server

Started by the guest's init; ends when the host has gone away, and with it the guest.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.guest.inside.wire import (
    CHUNK,
    GREETING,
    NUMBER,
    PORT,
    STATUS,
    Decoder,
    Frame,
    Kind,
)

PORTS = Path("/sys/class/virtio-ports")
NOT_STARTED = 127


def port_path(name: str) -> str:
    """The device of the port with that name.  Raises FileNotFoundError."""
    for entry in PORTS.iterdir():
        if (entry / "name").read_text().strip() == name:
            return f"/dev/{entry.name}"
    raise FileNotFoundError(f"no virtio-serial port {name}")


class Child:
    """A running program: its three pipes, and a descriptor that tells its end."""

    def __init__(self, request: dict[str, object]) -> None:
        argv, environment = request["argv"], request["env"]
        assert isinstance(argv, list)
        assert isinstance(environment, dict)
        self.process = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=str(request["cwd"]),
            env={**os.environ, **environment},
            start_new_session=True,
        )
        process = self.process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.stdin, self.ended = process.stdin.fileno(), os.pidfd_open(process.pid)
        self.outputs = {
            process.stdout.fileno(): Kind.OUTPUT,
            process.stderr.fileno(): Kind.ERRORS,
        }
        for fd in (self.stdin, *self.outputs):
            os.set_blocking(fd, False)
        self.waiting = b""
        self.input_ends = False

    def close(self) -> None:
        """Let go of every descriptor.  The program has ended."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        os.close(self.ended)


class Server:
    """The loop over the port and all programs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._decoder = Decoder()
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(port, selectors.EVENT_READ, self._take)

    def run(self) -> None:
        """Serves until the host has gone away."""
        self._write(GREETING)
        with contextlib.suppress(EOFError):
            while True:
                for key, _ in self._selector.select():
                    # Of several that are ready, the first may have removed the others.
                    if key.fd in self._selector.get_map():
                        key.data()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._port, data) :]

    def _send(self, kind: Kind, program: int, data: bytes) -> None:
        self._write(Frame(kind, program, data).encode())

    def _take(self) -> None:
        data = os.read(self._port, CHUNK)
        if not data:
            raise EOFError
        for frame in self._decoder.feed(data):
            if frame.kind is Kind.START:
                self._start(frame)
            elif frame.program in self._children:
                self._serve(frame, self._children[frame.program])

    def _start(self, frame: Frame) -> None:
        try:
            child = Child(json.loads(frame.data))
        except OSError as error:
            self._send(Kind.ERRORS, frame.program, f"{error}\n".encode())
            self._send(Kind.EXIT, frame.program, STATUS.pack(NOT_STARTED))
            return
        number = frame.program
        self._children[number] = child
        for fd in child.outputs:
            self._register(fd, lambda fd=fd: self._tell(number, child, fd))  # type: ignore[misc]
        self._register(child.ended, lambda: self._end(number, child))

    def _register(
        self, fd: int, act: Callable[[], object], event: int = selectors.EVENT_READ
    ) -> None:
        self._selector.register(fd, event, act)

    def _serve(self, frame: Frame, child: Child) -> None:
        match frame.kind:
            case Kind.INPUT:
                child.waiting += frame.data
            case Kind.END_OF_INPUT:
                child.input_ends = True
            case Kind.SIGNAL:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, NUMBER.unpack(frame.data)[0])
        self._feed(child)

    def _feed(self, child: Child) -> None:
        """Give a program what it takes of its input now, and watch for when it takes more."""
        assert child.process.stdin
        if child.process.stdin.closed:
            return
        try:
            while child.waiting:
                child.waiting = child.waiting[os.write(child.stdin, child.waiting[:CHUNK]) :]
        except BlockingIOError:
            if child.stdin not in self._selector.get_map():
                self._register(child.stdin, lambda: self._feed(child), selectors.EVENT_WRITE)
            return
        except BrokenPipeError:
            child.waiting = b""
        if child.stdin in self._selector.get_map():
            self._selector.unregister(child.stdin)
        if child.input_ends:
            child.process.stdin.close()

    def _tell(self, number: int, child: Child, fd: int) -> bool:
        """Pass on what a program has said; returns whether there may be more at once."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._send(child.outputs[fd], number, data)
        elif fd in self._selector.get_map():
            self._selector.unregister(fd)
        return bool(data)

    def _end(self, number: int, child: Child) -> None:
        status = child.process.wait()
        for fd in child.outputs:
            # Not until the end of the file: a process that it has left may hold the pipe.
            while self._tell(number, child, fd):
                pass
        for fd in (child.ended, child.stdin, *child.outputs):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        child.close()
        del self._children[number]
        self._send(Kind.EXIT, number, STATUS.pack(status))


def main() -> int:
    """Serves the port; returns the exit status."""
    # Python leaves SIGPIPE ignored, and a program would inherit that: Popen restores it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    port = os.open(port_path(PORT), os.O_RDWR | os.O_CLOEXEC)
    try:
        Server(port).run()
    finally:
        os.close(port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
