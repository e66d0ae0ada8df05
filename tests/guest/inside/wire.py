"""How programs in a guest are started and spoken to: frames on a virtio-serial port.

A frame is kind u8, program u32, length u32 (little endian, no padding), data.

    to the guest    START         JSON {"argv": […], "env": {…}, "cwd": "/"}
                    INPUT         for standard input
                    END_OF_INPUT  close standard input
                    SIGNAL        number u32, to the program's process group
    from the guest  OUTPUT        from standard output
                    ERRORS        from standard error
                    EXIT          status i32: exit status, or minus the signal's number
                                  (127 if it cannot be started: why is in ERRORS)

The host gives programs their numbers.  Each end begins with the greeting and drops what
comes before the other's: after a reset, the rest of a frame may be on its way.

Standard library only; imported at both ends.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

PORT = "farwatch.commands"
"""Name of the virtio-serial port."""
GREETING = b"\0farwatch guest commands 1\n\0"
HEADER = struct.Struct("<BII")
NUMBER = struct.Struct("<I")
STATUS = struct.Struct("<i")
CHUNK = 1 << 16
"""Most bytes of data in a frame that either end sends."""


class Kind(IntEnum):
    """What a frame is."""

    START = 1
    INPUT = 2
    END_OF_INPUT = 3
    SIGNAL = 4
    OUTPUT = 5
    ERRORS = 6
    EXIT = 7


class Frame(NamedTuple):
    """One message about one program."""

    kind: Kind
    program: int
    data: bytes

    def encode(self) -> bytes:
        """The bytes that travel."""
        return HEADER.pack(self.kind, self.program, len(self.data)) + self.data


class Decoder:
    """Bytes in, frames out.  Knows whether the greeting has come."""

    def __init__(self) -> None:
        self.greeted = False
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Takes what has arrived; returns the frames that are complete now."""
        self._rest += data
        if not self.greeted:
            before, found, after = self._rest.partition(GREETING)
            if not found:
                self._rest = before[-len(GREETING) :]
                return []
            self.greeted, self._rest = True, after
        frames = []
        while len(self._rest) >= HEADER.size:
            kind, program, length = HEADER.unpack_from(self._rest)
            end = HEADER.size + length
            if len(self._rest) < end:
                break
            frames.append(Frame(Kind(kind), program, self._rest[HEADER.size : end]))
            self._rest = self._rest[end:]
        return frames
