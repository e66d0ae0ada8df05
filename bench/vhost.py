"""What one request costs a vhost-user-fs daemon: farwatch's, and the C virtiofsd beside it.

One front end, the same for both, asks one request at a time and waits for the daemon's
call; what it sends lies ready in the shared memory, so that next to all of the time is the
daemon's, and the two wake-ups, on one processor.  Content is given as Linux does: page by
page, and these lie anywhere.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.daemons import C_VIRTIOFSD, FARWATCH, C, Daemon, serving
from bench.figures import Latency, latency
from farwatch.abi import fuse
from farwatch.abi.fuse import Init, Opcode
from farwatch.cli.failure import Failure
from farwatch.transports.vhost.driver import Buffer, DriverRing
from farwatch.transports.vhost.frontend import Frontend

_PAGE = 4096
_ROOM = 512
_PATIENCE_SECONDS = 10.0
_WARM = 20
_UNIQUE = 2
_NAME = b"file"
_FLAGS = int(
    Init.ASYNC_READ
    | Init.BIG_WRITES
    | Init.DO_READDIRPLUS
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
)


class Repeated:
    """A request that is asked time and again; ``body`` may be changed in between."""

    def __init__(
        self, frontend: Frontend, opcode: Opcode, node: int, body: bytes, payload: int = 0,
        content: int = 0,
    ) -> None:  # fmt: skip
        """``payload`` bytes follow the body, ``content`` bytes are room beside the reply's own."""
        memory = frontend.memory
        assert memory is not None
        self._ring: DriverRing = frontend.rings[frontend.request_queue]
        size = fuse.IN_HEADER.size + len(body) + payload
        header = fuse.IN_HEADER.pack(size, opcode, _UNIQUE, node, 0, 0, 1, 0, 0)
        # Apart from each other, as they are in Linux.
        places = [memory.allocate(_PAGE) for _ in range(4)]
        memory.write(places[0], header)
        memory.write(places[1], body)
        buffers = [Buffer(places[0], len(header), is_writable=False)]
        if body:
            buffers.append(Buffer(places[1], len(body), is_writable=False))
        buffers += _pages(frontend, payload, is_writable=False)
        buffers.append(Buffer(places[2], fuse.OUT_HEADER.size, is_writable=True))
        if content:
            buffers += _pages(frontend, content, is_writable=True)
        else:
            buffers.append(Buffer(places[3], _ROOM, is_writable=True))
        self._head = self._ring.reserve(buffers)
        self.body = _view(frontend, places[1], len(body))
        self._header = _view(frontend, places[2], fuse.OUT_HEADER.size)
        self.reply = _view(frontend, places[3], _ROOM)

    def __call__(self) -> None:
        """Asks, and waits for the reply.  Raises Failure if that is an error or never comes."""
        ring = self._ring
        ring.expose(self._head)
        ring.kick()
        while ring.used_index == ring.seen:
            if ring.rest() and not ring.wait(_PATIENCE_SECONDS):
                raise Failure("a request is not answered")
        ring.take()
        _, error, _ = fuse.OUT_HEADER.unpack(self._header)
        if error:
            raise Failure(f"a request is refused: {os.strerror(-error)}")


def _pages(frontend: Frontend, size: int, *, is_writable: bool) -> list[Buffer]:
    assert frontend.memory is not None
    if not size:
        return []
    start = frontend.memory.allocate(size + _PAGE)
    start += -start % _PAGE
    pages = list(range(start, start + size, _PAGE))
    random.Random(0).shuffle(pages)
    return [Buffer(at, _PAGE, is_writable) for at in pages]


def _view(frontend: Frontend, address: int, size: int) -> memoryview:
    assert frontend.memory is not None
    (found,) = frontend.memory.memory.guest(address, max(size, 1))
    return found[:size]


class Row(NamedTuple):
    """One operation, in microseconds, by either daemon."""

    operation: str
    c: Latency
    farwatch: Latency

    @property
    def ratio(self) -> float:
        """farwatch's median to the C virtiofsd's."""
        return self.farwatch.median / self.c.median


Act = Callable[[], None]


def _acts(frontend: Frontend) -> dict[str, Act]:
    """What is measured, by name, each done once by a call."""
    init = Repeated(frontend, Opcode.INIT, 0, fuse.INIT_IN.pack(7, 36, 1 << 20, _FLAGS, 0))
    init()
    node, fh = _made(frontend)
    acts: dict[str, Act] = {
        "GETATTR": Repeated(frontend, Opcode.GETATTR, node, fuse.GETATTR_IN.pack(0, 0, 0)),
        "LOOKUP": Repeated(frontend, Opcode.LOOKUP, fuse.ROOT_ID, _NAME + b"\0"),
        "OPEN, RELEASE": _open_release(frontend, node),
        "CREATE, RELEASE, UNLINK": _create_unlink(frontend),
    }
    for size in (1 << 16, 1 << 20):
        name = f"{size >> 10} KiB"
        io = fuse.WRITE_IN.pack(fh, 0, size, 0, 0, os.O_RDWR, 0)
        acts[f"WRITE {name}"] = Repeated(frontend, Opcode.WRITE, node, io, payload=size)
        acts[f"READ {name}"] = Repeated(frontend, Opcode.READ, node, io, content=size)
    return acts


def _made(frontend: Frontend) -> tuple[int, int]:
    """A file's node, and a handle of it."""
    create = _create(frontend, _NAME)
    create()
    return _opened(create)


def _create(frontend: Frontend, name: bytes) -> Repeated:
    body = fuse.CREATE_IN.pack(os.O_CREAT | os.O_RDWR, 0o100644, 0o022, 0) + name + b"\0"
    return Repeated(frontend, Opcode.CREATE, fuse.ROOT_ID, body)


def _opened(create: Repeated) -> tuple[int, int]:
    """Node and file handle of CREATE's reply."""
    node = fuse.ENTRY_OUT_HEAD.unpack_from(create.reply)[0]
    entry = fuse.ENTRY_OUT_HEAD.size + fuse.ATTR.size
    return node, fuse.OPEN_OUT.unpack_from(create.reply, entry)[0]


def _open_release(frontend: Frontend, node: int) -> Act:
    opening = Repeated(frontend, Opcode.OPEN, node, fuse.OPEN_IN.pack(os.O_RDWR, 0))
    release = Repeated(frontend, Opcode.RELEASE, node, fuse.RELEASE_IN.pack(0, 0, 0, 0))

    def act() -> None:
        opening()
        release.body[:8] = opening.reply[:8]
        release()

    return act


def _create_unlink(frontend: Frontend) -> Act:
    name = b"another"
    create = _create(frontend, name)
    release = Repeated(frontend, Opcode.RELEASE, fuse.ROOT_ID, fuse.RELEASE_IN.pack(0, 0, 0, 0))
    unlink = Repeated(frontend, Opcode.UNLINK, fuse.ROOT_ID, name + b"\0")

    def act() -> None:
        create()
        fh = _opened(create)[1]
        release.body[:8] = fh.to_bytes(8, "little")
        release()
        unlink()

    return act


def measure(
    top: Path, samples: int, rounds: int, daemons: tuple[Daemon, Daemon] = (C, FARWATCH)
) -> Iterator[Row]:
    """Each operation ``samples`` times in all by either daemon, in turns, in ``top``.

    Raises Failure if a daemon is not there, or does not answer.
    """
    if not C_VIRTIOFSD.exists():
        raise Failure(f"no {C_VIRTIOFSD}: apt-get install qemu-system-common")
    with ExitStack() as stack:
        stack.enter_context(_on_one_processor())
        acts: list[dict[str, Act]] = []
        for index, daemon in enumerate(daemons):
            directory = top / f"served-{index}"
            directory.mkdir()
            acts.append(_acts(stack.enter_context(serving(daemon, directory))))
        for name in acts[0]:
            times: tuple[list[list[int]], list[list[int]]] = ([], [])
            for number in range(rounds):
                for which in (0, 1) if number % 2 == 0 else (1, 0):
                    times[which].append(_timed(acts[which][name], max(1, samples // rounds)))
            yield Row(name, *(latency(each) for each in times))


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """For this process and those that it starts: how far a wake-up goes is else left to luck."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _timed(act: Act, count: int) -> list[int]:
    """Nanoseconds of each of ``count`` times, the first few left out."""
    now = time.perf_counter_ns
    taken = []
    for _ in range(_WARM):
        act()
    for _ in range(count):
        started = now()
        act()
        taken.append(now() - started)
    return taken
