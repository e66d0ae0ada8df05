"""A hostile server: one dropped connection, an error that says so, never a hang."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from farwatch.abi import fsnotify, fuse
from farwatch.abi.fsnotify import Event, Source, encode_event
from farwatch.abi.fuse import Opcode
from farwatch.client import IN_CREATE, IN_IGNORED, IN_ISDIR, IN_UNMOUNT, FileSystem, ProtocolError
from farwatch.client.inotify import Inotify
from tests.client.hostile import HostileServer, Peer, Script, attributes, entry

Use = Callable[[FileSystem], Awaitable[object]]


async def silent(peer: Peer) -> None:
    await peer.reader.read()


def against(
    path: Path, script: Script, use: Use | None = None, *, seconds: float = 5, mode: str = "local"
) -> None:
    """Connects to a server with this script, and does something."""

    async def client() -> None:
        async with asyncio.timeout(20), HostileServer(path / "s", script) as server:
            async with FileSystem(server.url, seconds=seconds, mode=mode) as there:
                if use is not None:
                    await use(there)

    asyncio.run(client())


# The greeting --------------------------------------------------------------------------------


def saying(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        peer.say(data)
        await silent(peer)

    return script


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (b"FARWATCH/1 no wrong token\n", ConnectionRefusedError),
        (b"FARWATCH/2 ok\n", ProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", ProtocolError),
        (b"\n", ProtocolError),
        (b"x" * 5000, ProtocolError),
        (b"\0" * 5000, ProtocolError),
    ],
)
def test_greeting(tmp_path: Path, data: bytes, right: type[Exception]) -> None:
    with pytest.raises(right):
        against(tmp_path, saying(data))


def test_the_servers_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="wrong token"):
        against(tmp_path, saying(b"FARWATCH/1 no wrong token\x1b[2J\n"))


def test_no_greeting(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        against(tmp_path, silent, seconds=0.2)


async def hangs_up(peer: Peer) -> None:
    await peer.reader.readline()


def test_hangs_up_instead(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        against(tmp_path, hangs_up)


def test_nobody_there(tmp_path: Path) -> None:
    async def client() -> None:
        await FileSystem(f"unix:{tmp_path}/s").connect()

    with pytest.raises(FileNotFoundError):
        asyncio.run(client())


# Messages --------------------------------------------------------------------------------------


def begun(then: Callable[[Peer], Awaitable[None]], *, can: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.begin(can=can)
        await then(peer)
        await silent(peer)

    return script


async def no_init(peer: Peer) -> None:
    await peer.greet()
    request = await peer.request()
    peer.answer(request, bytes(64))
    await silent(peer)


def test_init_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        against(tmp_path, no_init)


def test_init_with_what_was_not_offered(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        against(tmp_path, begun(silent, can=True), mode="local")


def answering(payload: bytes, error: int = 0) -> Script:
    async def then(peer: Peer) -> None:
        while True:
            peer.answer(await peer.request(), payload, error)

    return begun(then)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        entry()[:-1],
        entry() + b"x",
        entry(mode=0o644),
        entry(node=1),
        bytes(5000),
    ],
)
def test_wrong_entries(tmp_path: Path, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        against(tmp_path, answering(payload), lambda there: there.stat("x"))


def test_an_errno_is_an_errno(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        against(tmp_path, answering(b"", errno.EACCES), lambda there: there.stat("x"))


def test_after_a_wrong_answer_everything_fails(tmp_path: Path) -> None:
    async def use(there: FileSystem) -> None:
        slow = asyncio.ensure_future(there.stat("slow"))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await there.stat("x")
        with pytest.raises(ConnectionError):
            await slow
        assert not there.is_up

    async def then(peer: Peer) -> None:
        await peer.request()
        peer.answer(await peer.request(), b"x")

    against(tmp_path, begun(then), use)


def test_no_answer(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="no answer within"):
        against(tmp_path, begun(silent), lambda there: there.stat("x"), seconds=0.3)


def test_hangs_up_meanwhile(tmp_path: Path) -> None:
    async def then(peer: Peer) -> None:
        await peer.request()
        peer.say(b"\x50\0\0\0")
        peer.writer.close()

    with pytest.raises(ConnectionError):
        against(tmp_path, begun(then), lambda there: there.stat("x"))


def test_types_do_not_change(tmp_path: Path) -> None:
    async def then(peer: Peer) -> None:
        peer.answer(await peer.request(), entry(mode=0o040755))
        peer.answer(await peer.request(), entry(mode=0o100644))

    with pytest.raises(ProtocolError, match="another type"):
        against(tmp_path, begun(then), lambda there: there.stat("a/a"))


def test_symbolic_links_without_end(tmp_path: Path) -> None:
    async def then(peer: Peer) -> None:
        while True:
            request = await peer.request()
            is_link = request.opcode == Opcode.READLINK
            peer.answer(request, b"x/" * 1000 if is_link else entry(mode=0o120777))

    with pytest.raises(OSError, match="symbolic links"):
        against(tmp_path, begun(then), lambda there: there.stat("x"))


def listing(entries: Callable[[int], bytes]) -> Script:
    async def then(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.opcode == Opcode.LOOKUP:
                peer.answer(request, entry(mode=0o040755))
            elif request.opcode == Opcode.OPENDIR:
                peer.answer(request, fuse.OPEN_OUT.pack(3, 0, 0))
            elif request.opcode == Opcode.READDIR:
                offset = fuse.READ_IN.unpack(request.body)[1]
                peer.answer(request, entries(offset))
            else:
                peer.answer(request)

    return begun(then)


def dirent(name: bytes, following: int) -> bytes:
    return fuse.DIRENT.pack(3, following, len(name), 8) + name + bytes(-(24 + len(name)) % 8)


@pytest.mark.parametrize(
    "entries",
    [
        lambda offset: dirent(b"same", offset),
        lambda offset: dirent(b"a/b", offset + 1),
        lambda offset: dirent(b"x" * 300, offset + 1),
        lambda offset: b"x" * 30000,
        lambda offset: bytes(40000),
    ],
)
def test_wrong_listings(tmp_path: Path, entries: Callable[[int], bytes]) -> None:
    with pytest.raises(ProtocolError):
        against(tmp_path, listing(entries), lambda there: there.listdir("/d"))


def test_listing_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farwatch.client.listing._MOST_ENTRIES", 10_000)
    many = [dirent(b"%08d" % index, 1 + index) for index in range(1000)]

    def entries(offset: int) -> bytes:
        return b"".join(many[:-1]) + dirent(b"last", 5 if offset != 5 else 6)

    with pytest.raises(ProtocolError, match="does not end"):
        against(tmp_path, listing(entries), lambda there: there.listdir("/d"), seconds=60)


def test_reads_more_than_was_asked(tmp_path: Path) -> None:
    async def then(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.opcode == Opcode.LOOKUP:
                peer.answer(request, entry())
            elif request.opcode == Opcode.OPEN:
                peer.answer(request, fuse.OPEN_OUT.pack(3, 0, 0))
            elif request.opcode == Opcode.READ:
                peer.answer(request, bytes(1 << 18))
            else:
                peer.answer(request)

    with pytest.raises(ProtocolError):
        against(tmp_path, begun(then), lambda there: there.read_bytes("x"))


# Notifications -----------------------------------------------------------------------------------


async def watching(there: FileSystem) -> Inotify:
    instance = there.inotify()
    await instance.add_watch("/", IN_CREATE)
    return instance


async def until_lost(there: FileSystem) -> None:
    """The watch ends, and it is said why."""
    instance = await watching(there)
    found: list[int] = []
    while IN_IGNORED not in found:
        found += [event.mask for event in await instance.read()]
    assert found == [IN_UNMOUNT | IN_ISDIR, IN_IGNORED]
    assert not there.is_up
    await instance.close()
    with pytest.raises(ConnectionError):
        await there.stat("/")


def telling(code: int, payload: bytes) -> Script:
    async def then(peer: Peer) -> None:
        peer.answer(await peer.request(), fsnotify.MARK_OUT.pack(int(IN_CREATE), 0, 0))
        peer.notify(code, payload)

    return begun(then, can=True)


def event(**fields: object) -> bytes:
    fact = Event(int(IN_CREATE), parent=1, name=b"x", source=Source.REMOTE, sequence=1)
    return encode_event(fact._replace(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (0x4657, b""),
        (0x4657, event()[:-1]),
        (0x4657, event() + b"y"),
        (0x4657, event(name=b"a/b")),
        (0x4657, event(name=b"..")),
        (0x4657, event(name=b"a\0b")),
        (0x4657, event(name=b"x" * 256)),
        (0x4657, event(name=b"")),
        (0x4657, event(mask=0x8000)),
        (0x4657, event(mask=0x2000)),
        (0x4657, event(sequence=0)),
        (0x4658, b""),
        (0x4658, fsnotify.ENDED.pack(1, 1, 0, 9)),
        (0x1234, b""),
        (4711, bytes(60000)),
    ],
    ids=lambda value: None if isinstance(value, bytes) else hex(value),
)
@pytest.mark.parametrize("mode", ["remote", "merged"])
def test_wrong_notifications(tmp_path: Path, mode: str, code: int, payload: bytes) -> None:
    against(tmp_path, telling(code, payload), until_lost, mode=mode)


def test_events_that_were_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        against(
            tmp_path,
            begun(_notify, can=False),
            lambda there: there.stat("x"),
            mode="remote",
        )


async def _notify(peer: Peer) -> None:
    peer.notify(0x4657, event())


def test_caches_may_be_told_of(tmp_path: Path) -> None:
    """Notifications about caches are for kernels; they do no harm."""

    async def then(peer: Peer) -> None:
        for code in fuse.Notify:
            peer.notify(code, bytes(24))
        request = await peer.request()
        peer.answer(request, bytes(16) + attributes(0o040755))

    async def use(there: FileSystem) -> None:
        assert (await there.stat("/")).st_ino == 9

    against(tmp_path, begun(then), use)


def test_events_without_end_while_a_watch_is_placed(tmp_path: Path) -> None:
    """The watch that is being placed is told that it has missed some; nothing piles up."""

    async def then(peer: Peer) -> None:
        request = await peer.request()
        for sequence in range(1, 70_001):
            peer.notify(0x4657, event(sequence=sequence))
            if sequence % 1000 == 0:
                await peer.writer.drain()
        peer.answer(request, fsnotify.MARK_OUT.pack(int(IN_CREATE), 0, 0))
        peer.notify(0x4657, event(name=b"after", sequence=70_001))

    async def use(there: FileSystem) -> None:
        instance = await watching(there)
        found: list[tuple[int, bytes]] = []
        while not found or found[-1][1] != b"after":
            found += [(each.mask, each.name) for each in await instance.read()]
        assert found[0][0] == 0x4000
        await instance.close()

    async def marks(peer: Peer) -> None:
        await then(peer)
        while True:
            peer.answer(await peer.request(), fsnotify.MARK_OUT.pack(0, 0, 70_001))

    against(tmp_path, begun(marks, can=True), use, mode="remote", seconds=60)


# Cancelled callers -------------------------------------------------------------------------


def test_a_cancelled_caller_leaks_nothing(tmp_path: Path) -> None:
    """INTERRUPT is sent; what is answered all the same is forgotten and closed."""

    async def use_with(there: FileSystem, peer: Peer, asked: asyncio.Event) -> None:
        opening = asyncio.ensure_future(there.open("x"))
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    async def client() -> None:
        asked, released = asyncio.Event(), asyncio.Event()
        peers: list[Peer] = []

        async def script(peer: Peer) -> None:
            await peer.begin(can=False)
            peers.append(peer)
            peer.answer(await peer.request(), entry())
            opening = await peer.request()
            assert opening.opcode == Opcode.OPEN
            asked.set()
            head = await peer.reader.readexactly(48)
            assert fuse.IN_HEADER.unpack_from(head)[1] == Opcode.INTERRUPT
            assert fuse.INTERRUPT_IN.unpack_from(head, 40)[0] == opening.unique
            peer.answer(opening, fuse.OPEN_OUT.pack(3, 0, 0))
            for opcode in (Opcode.FLUSH, Opcode.RELEASE):
                closing = await peer.request()
                assert closing.opcode == opcode
                peer.answer(closing)
            last = await peer.reader.readexactly(48)
            assert fuse.IN_HEADER.unpack_from(last)[1] == Opcode.FORGET
            released.set()
            await silent(peer)

        async with asyncio.timeout(20), HostileServer(tmp_path / "s", script) as server:
            async with FileSystem(server.url, seconds=5) as there:
                await use_with(there, peers[0], asked)
                await released.wait()
                assert len(there.kernel.inodes) == 1

    asyncio.run(client())
