"""QEMU's monitor: JSON lines on a stream (QEMU Machine Protocol)."""

from __future__ import annotations

import json
import socket

from tests.guest.programs import GuestSilent

ANSWER_SECONDS = 20.0


class Monitor:
    """A connection to the monitor.  Owns the socket."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(ANSWER_SECONDS)
        self._stream = stream
        self._file = stream.makefile("rb")

    def negotiate(self) -> None:
        """Take QEMU's greeting, and leave negotiation mode.  Raises GuestSilent."""
        if "QMP" not in self._line():
            raise GuestSilent("QEMU's monitor does not greet")
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> object:
        """Give one command and return its answer.  Raises GuestSilent if it fails."""
        request = {"execute": command, "arguments": arguments}
        try:
            self._stream.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise GuestSilent(f"QEMU's monitor, {command}: {error}") from None
        while True:
            answer = self._line()
            if "error" in answer:
                raise GuestSilent(f"QEMU's monitor, {command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def _line(self) -> dict[str, object]:
        try:
            line = self._file.readline()
        except OSError as error:
            raise GuestSilent(f"QEMU's monitor: {error}") from None
        if not line:
            raise GuestSilent("QEMU has ended")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._stream.close()
