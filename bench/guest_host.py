"""The host's part of an event's way into a guest: from the change to the daemon's call.

In the guest's place a front end of vhost-user, which does what the agent does: it registers,
and keeps a WAIT parked.  It makes the change itself, and sleeps until the daemon calls: to look
at the ring all the time would keep the daemon from the processor.  So its own wake-up counts.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path

from bench.daemons import FARWATCH, serving
from bench.figures import Latency, latency
from bench.latency import Subject
from bench.watching import Deaf
from farwatch.abi import control, fuse
from farwatch.abi.control import WatchFlag
from farwatch.abi.fuse import Init, Opcode
from farwatch.abi.steps import Step, decode_batch
from farwatch.cli.failure import Failure
from farwatch.transports.vhost.frontend import Frontend, Pending

ARRIVAL_SECONDS = 5.0
QUIET_SECONDS = 0.02
"""Longer than the daemon holds back what it cannot explain yet."""
_THREAD = 1
_ROOM = control.BUFFER_SIZE + 4096
_FLAGS = int(Init.HAS_IOCTL_DIR | Init.MAX_PAGES | Init.INIT_EXT)


class Agent:
    """Registered with a daemon, with a WAIT parked; what it is told to do it does not do."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._ring = frontend.rings[frontend.request_queue]
        self._unique = 0
        self._ask(Opcode.INIT, fuse.INIT_IN.pack(7, 41, 1 << 20, _FLAGS, 0), 0)
        opened = self._ask(Opcode.OPENDIR, fuse.OPEN_IN.pack(os.O_RDONLY, 0))
        self._handle: int = fuse.OPEN_OUT.unpack_from(opened)[0]
        self._wait(self._ioctl(control.HELLO, control.HELLO_IN.pack(control.VERSION, 0)))
        scan = control.WATCH_IN.pack(WatchFlag.FIRST | WatchFlag.LAST, 0, 0)
        self._wait(self._ioctl(control.WATCH, scan))
        self._parked = self._park(0)

    def look_up(self, name: bytes, directory: int = fuse.ROOT_ID) -> int:
        """Makes a name known, as a client that uses it does; its node, 0 if it is not there."""
        try:
            entry = self._ask(Opcode.LOOKUP, name + b"\0", directory)
        except FileNotFoundError:
            return 0
        node: int = fuse.ENTRY_OUT_HEAD.unpack_from(entry)[0]
        return node

    def arrival(self) -> int:
        """When an answer with steps was in the ring (CLOCK_MONOTONIC, ns).  Raises Deaf."""
        ring = self._ring
        while True:
            if ring.rest() and not ring.wait(ARRIVAL_SECONDS):
                raise Deaf("the daemon does not answer a parked WAIT")
            at = time.monotonic_ns()
            reply = self._frontend.poll(self._parked)
            if reply is not None and self._next(reply):
                return at

    def settle(self) -> None:
        """Returns when nothing more comes."""
        while True:
            try:
                reply = self._frontend.wait(self._parked, QUIET_SECONDS)
            except TimeoutError:
                return
            self._next(reply)

    def _next(self, reply: bytes) -> list[Step]:
        """The steps of an answer; the next WAIT is parked."""
        data = _payload(reply)[fuse.IOCTL_OUT.size :]
        number, _, _, steps = decode_batch(data)
        self._parked = self._park(number)
        return steps

    def _park(self, done: int) -> Pending:
        return self._ioctl(control.WAIT, control.encode_wait(done, ()))

    def _ioctl(self, command: int, data: bytes) -> Pending:
        head = fuse.IOCTL_IN.pack(
            self._handle, fuse.IOCTL_DIR, command, 0, len(data), control.BUFFER_SIZE
        )
        return self._submit(Opcode.IOCTL, head + data, fuse.ROOT_ID)

    def _ask(self, opcode: Opcode, body: bytes, node: int = fuse.ROOT_ID) -> bytes:
        return self._wait(self._submit(opcode, body, node))

    def _wait(self, pending: Pending) -> bytes:
        return _payload(self._frontend.wait(pending))

    def _submit(self, opcode: Opcode, body: bytes, node: int) -> Pending:
        self._unique += 2
        header = fuse.IN_HEADER.pack(
            fuse.IN_HEADER.size + len(body), opcode, self._unique, node, 0, 0, _THREAD, 0, 0
        )
        return self._frontend.submit(header + body, _ROOM)


def _payload(reply: bytes) -> bytes:
    _, error, _ = fuse.OUT_HEADER.unpack_from(reply)
    if error == -errno.ENOENT:
        raise FileNotFoundError
    if error:
        raise Failure(f"farwatch's daemon refuses a request: {os.strerror(-error)}")
    return reply[fuse.OUT_HEADER.size :]


def measure(
    kinds: Mapping[str, Subject], top: Path, samples: int, rounds: int
) -> dict[str, Latency]:
    """Each of these event types, in a new directory ``top``.  Raises Deaf or Failure."""
    directory = top / "events"
    directory.mkdir(parents=True)
    measured = {}
    with serving(FARWATCH, top) as frontend:
        agent = Agent(frontend)
        node = agent.look_up(b"events")
        for kind, subject in kinds.items():
            times = []
            for number in range(rounds):
                first, behind = number * samples // rounds, (number + 1) * samples // rounds
                names = [str(index) for index in range(first, behind)]
                for name in names:
                    agent.look_up(name.encode(), node)
                times.append([_once(agent, subject, directory, name) for name in names])
            measured[kind] = latency(times)
    return measured


def _once(agent: Agent, subject: Subject, directory: Path, name: str) -> int:
    """Nanoseconds for one change."""
    fd = subject.before(directory, name)
    agent.settle()
    started = time.monotonic_ns()
    subject.change(directory, name, fd)
    taken = agent.arrival() - started
    subject.after(directory, name, fd)
    return taken
