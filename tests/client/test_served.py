"""The client on real servers: every way to connect, every mode."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from farwatch.client import (
    IN_ALL_EVENTS,
    IN_CREATE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    FileSystem,
    Inotify,
    InotifyEvent,
    Misuse,
    Source,
    Watcher,
)
from tests.client.inprocess import said
from tests.client.servers import KINDS, Served, write

pytestmark = pytest.mark.root
IDLE_SECONDS, IDLE_SHARE = 1.0, 0.05
CHANGES = IN_ALL_EVENTS & ~0x31
"""Everything but what reading makes: OPEN, ACCESS, CLOSE_NOWRITE."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "directory"
    made.mkdir()
    return made


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path: Path, directory: Path) -> Iterator[Served]:
    with Served(request.param, directory, tmp_path) as server:
        yield server


@pytest.fixture
def on_socket(tmp_path: Path, directory: Path) -> Iterator[Served]:
    with Served("unix", directory, tmp_path) as server:
        yield server


def within(work: Callable[[], Awaitable[None]], seconds: float = 40) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())


async def until(instance: Inotify, name: bytes) -> list[InotifyEvent]:
    """What is heard up to the making of this name, and with it; the name itself is left out."""
    found: list[InotifyEvent] = []
    while not any(event.name == name for event in found):
        found += await instance.read()
    return [event for event in found if event.name != name]


def told(events: list[InotifyEvent]) -> list[tuple[str, bytes]]:
    """Kinds and names; equal neighbours once, for how many there are depends on the moment."""
    found: list[tuple[str, bytes]] = []
    for event in events:
        if not found or found[-1] != (said(event.mask), event.name):
            found.append((said(event.mask), event.name))
    return found


@pytest.mark.parametrize("mode", ["remote", "merged"])
def test_others_are_heard(served: Served, directory: Path, mode: str) -> None:
    """What somebody does in the directory, and the client itself, each once."""

    async def work() -> None:
        async with Watcher(served.url, mode=mode, **served.options) as watcher:
            assert watcher.mode == mode
            instance = watcher.inotify()
            await instance.add_watch("/", CHANGES)
            write(directory / "a", b"theirs")
            os.rename(directory / "a", directory / "b")
            os.chmod(directory / "b", 0o600)
            os.unlink(directory / "b")
            os.mkdir(directory / "end")
            theirs = await until(instance, b"end")
            assert told(theirs) == [
                ("CREATE", b"a"),
                ("MODIFY", b"a"),
                ("CLOSE_WRITE", b"a"),
                ("MOVED_FROM", b"a"),
                ("MOVED_TO", b"b"),
                ("ATTRIB", b"b"),
                ("DELETE", b"b"),
            ]
            assert {event.source for event in theirs} == {Source.REMOTE}
            assert theirs[3].cookie == theirs[4].cookie != 0
            await watcher.write_bytes("/mine", b"mine")
            assert await watcher.read_bytes("/mine") == b"mine"
            await watcher.rename("/mine", "/my")
            await watcher.unlink("/my")
            await watcher.mkdir("/end2")
            mine = await until(instance, b"end2")
            assert told(mine) == [
                ("CREATE", b"mine"),
                ("MODIFY", b"mine"),
                ("CLOSE_WRITE", b"mine"),
                ("MOVED_FROM", b"mine"),
                ("MOVED_TO", b"my"),
                ("DELETE", b"my"),
            ]
            assert {event.source for event in mine} == {Source.LOCAL}
            assert {event.client for event in mine} == {watcher.number}
            await instance.close()

    within(work)


def test_it_sleeps_while_nothing_happens(served: Served, directory: Path) -> None:
    """After it was told something, too: what it has taken is not looked for again."""

    async def is_idle() -> bool:
        before = time.thread_time()
        await asyncio.sleep(IDLE_SECONDS)
        return time.thread_time() - before < IDLE_SHARE * IDLE_SECONDS

    async def work() -> None:
        async with Watcher(served.url, **served.options) as watcher:
            instance = watcher.inotify()
            await instance.add_watch("/", CHANGES)
            write(directory / "a", b"theirs")
            await until(instance, b"a")
            while not await is_idle():
                pass
            write(directory / "b", b"theirs")
            await until(instance, b"b")

    within(work)


def test_local_mode(served: Served, directory: Path) -> None:
    """Only what the client does itself."""

    async def work() -> None:
        async with Watcher(served.url, mode="local", **served.options) as watcher:
            assert watcher.mode == "local"
            instance = watcher.inotify()
            await instance.add_watch("/", CHANGES)
            write(directory / "a", b"theirs")
            await watcher.unlink("/a")
            await watcher.mkdir("/end")
            assert told(await until(instance, b"end")) == [("DELETE", b"a")]

    within(work)


@pytest.mark.parametrize("mode", ["remote", "merged"])
@pytest.mark.parametrize("who", ["theirs", "mine"])
def test_the_end_of_a_watched_file(served: Served, directory: Path, mode: str, who: str) -> None:
    """DELETE_SELF and IGNORED, once, whoever removes it; then the loop ends by itself."""

    async def work() -> None:
        write(directory / "file", b"x")
        async with Watcher(served.url, mode=mode, **served.options) as watcher:
            events = watcher.watch("/file", CHANGES)
            ready = watcher.watch("/", IN_CREATE)
            first = asyncio.ensure_future(anext(aiter(events)))
            other = asyncio.ensure_future(anext(aiter(ready)))
            while len(watcher.core.marked()) < 2:
                await asyncio.sleep(0.01)
            if who == "mine":
                await watcher.unlink("/file")
            else:
                os.unlink(directory / "file")
            found = [await first, *[event async for event in events]]
            assert [said(event.mask) for event in found] == ["ATTRIB", "DELETE_SELF", "IGNORED"]
            source = Source.LOCAL if who == "mine" else Source.REMOTE
            assert {event.source for event in found[:2]} == {source}
            assert found[-1].mask == IN_IGNORED
            os.mkdir(directory / "end")
            assert (await other).name == b"end"
            await events.aclose()  # type: ignore[attr-defined]
            await ready.aclose()  # type: ignore[attr-defined]

    within(work)


@pytest.mark.parametrize("mode", ["remote", "merged"])
def test_held_open_by_this_client(served: Served, directory: Path, mode: str) -> None:
    """Removed by somebody else: DELETE at once, DELETE_SELF when this client closes it."""

    async def work() -> None:
        write(directory / "file", b"x")
        async with Watcher(served.url, mode=mode, **served.options) as watcher:
            instance = watcher.inotify()
            names = {
                await instance.add_watch("/", CHANGES): "/",
                await instance.add_watch("/file", CHANGES): "file",
            }
            file = await watcher.open("/file", os.O_RDWR)
            os.unlink(directory / "file")
            os.mkdir(directory / "one")
            before = await until(instance, b"one")
            assert [said(each.mask) for each in before if names[each.wd] == "/"] == ["DELETE"]
            assert "DELETE_SELF" not in [said(event.mask) for event in before]
            await file.write(b"late")
            await file.close()
            os.mkdir(directory / "two")
            after = await until(instance, b"two")
            while IN_IGNORED not in [event.mask for event in after]:
                after += await instance.read()
            found = [said(event.mask) for event in after if names[event.wd] == "file"]
            assert found == ["MODIFY", "CLOSE_WRITE", "DELETE_SELF", "IGNORED"]
            await instance.close()

    within(work)


def test_two_clients(on_socket: Served, directory: Path) -> None:
    """Each hears of the other, and who it was."""

    async def work() -> None:
        async with Watcher(on_socket.url) as one, Watcher(on_socket.url, mode="merged") as two:
            assert one.number != two.number
            heard = [one.inotify(), two.inotify()]
            for instance in heard:
                await instance.add_watch("/", IN_CREATE)
            await one.mkdir("/of-one")
            await two.mkdir("/of-two")
            os.mkdir(directory / "end")
            for client, instance in zip((one, two), heard, strict=True):
                events = {each.name: each for each in await until(instance, b"end")}
                assert set(events) == {b"of-one", b"of-two"}
                for name, other in ((b"of-one", one), (b"of-two", two)):
                    right = Source.LOCAL if other is client else Source.REMOTE
                    assert (events[name].source, events[name].client) == (right, other.number)

    within(work)


def test_many_at_once(served: Served, directory: Path) -> None:
    """Requests are numbered; large ones and small ones, more than there is room for."""
    size = 3 << 20

    async def work() -> None:
        async with FileSystem(served.url, **served.options) as there:

            async def one(index: int) -> None:
                path, content = f"/{index}", os.urandom(size if index % 40 == 0 else 100)
                await there.write_bytes(path, content)
                assert (await there.stat(path)).st_size == len(content)
                assert await there.read_bytes(path) == content
                await there.unlink(path)

            await asyncio.gather(*(one(index) for index in range(200)))
            assert await there.listdir() == []
            assert len(there.kernel.inodes) == 1

    within(work, 100)


def test_cancelled_callers(served: Served, directory: Path) -> None:
    async def work() -> None:
        async with FileSystem(served.url, **served.options) as there:
            for index in range(60):
                tasks = [
                    asyncio.ensure_future(there.write_bytes(f"/{index}-{each}", b"x" * 100_000))
                    for each in range(5)
                ]
                for _ in range(index % 20):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            # Whatever went on without its caller has ended once nothing is held any more.
            while len(there.kernel.inodes) > 1:
                await asyncio.sleep(0.01)
            await there.stat("/")

    within(work)


def test_a_loop_by_itself(on_socket: Served, directory: Path) -> None:
    """Nobody has connected it, so it does, and is gone afterwards."""

    async def work() -> None:
        write(directory / "file", b"x")
        watcher = Watcher(on_socket.url)

        async def remove() -> None:
            while not watcher.core.marked():
                await asyncio.sleep(0.01)
            os.unlink(directory / "file")

        removing = asyncio.ensure_future(remove())
        found = [said(event.mask) async for event in watcher.watch("/file", CHANGES)]
        assert found == ["ATTRIB", "DELETE_SELF", "IGNORED"]
        await removing
        assert not watcher.is_up
        with pytest.raises(FileNotFoundError):
            async for _ in watcher.watch("/nothing"):
                pass

    within(work)


def test_overflow(on_socket: Served, directory: Path) -> None:
    async def work() -> None:
        async with Watcher(on_socket.url) as watcher, watcher.inotify(limit=10) as instance:
            await instance.add_watch("/", IN_CREATE)
            heard = watcher.inotify()
            await heard.add_watch("/", IN_CREATE)
            for index in range(20):
                os.mkdir(directory / f"{index:02}")
            os.mkdir(directory / "end")
            await until(heard, b"end")
            found = await instance.read()
            assert [event.name for event in found[:-1]] == [b"%02d" % each for each in range(10)]
            assert found[-1] == InotifyEvent(-1, IN_Q_OVERFLOW, 0, b"")

    within(work)


def test_wrong_token(tmp_path: Path, directory: Path) -> None:
    async def work(url: str, **options: object) -> None:
        async with FileSystem(url, **options):  # type: ignore[arg-type]
            pass

    with Served("tcps", directory, tmp_path) as server:
        options = server.options
        with pytest.raises(ConnectionRefusedError, match="token"):
            asyncio.run(work(server.url, **{**options, "token": "wrong"}))
        with pytest.raises(ConnectionRefusedError, match="token"):
            asyncio.run(work(server.url, tls=options["tls"]))
        with pytest.raises(ConnectionError, match="certificate"):
            asyncio.run(work(server.url, token=options["token"]))
    with pytest.raises(Misuse, match="in the clear"):
        asyncio.run(work("tcp://192.0.2.1:1", token="t"))


# Lost connections ------------------------------------------------------------------------------


def test_the_server_goes(served: Served) -> None:
    """Who does not reconnect hears UNMOUNT and IGNORED; then everything is an error."""

    async def work() -> None:
        async with Watcher(served.url, reconnects=False, **served.options) as watcher:
            instance = watcher.inotify()
            await instance.add_watch("/", IN_CREATE)
            served.stop()
            found: list[InotifyEvent] = []
            while len(found) < 2:
                found += await instance.read()
            assert [event.mask for event in found] == [IN_UNMOUNT | IN_ISDIR, IN_IGNORED]
            with pytest.raises(ConnectionError):
                await watcher.stat("/")
            await instance.close()

    within(work)


@pytest.mark.parametrize("kind", ["unix", "tcps"])
@pytest.mark.parametrize("mode", ["remote", "merged"])
def test_reconnect(kind: str, mode: str, tmp_path: Path, directory: Path) -> None:
    """What happened while nobody was listening is told when there is somebody again."""
    for name in ("kept", "changed", "touched", "gone", "old", "same-name"):
        write(directory / name, b"before")
    (directory / "sub").mkdir()
    (directory / "removed").mkdir()
    write(directory / "watched", b"before")

    async def work(server: Served) -> None:
        async with Watcher(server.url, mode=mode, **server.options) as watcher:
            instance = watcher.inotify()
            names = {
                await instance.add_watch(path, CHANGES): path
                for path in ("/", "/sub", "/removed", "/watched")
            }
            changed = asyncio.Event()
            watcher.on_change = changed.set
            server.stop()
            await changed.wait()
            assert not watcher.is_up
            write(directory / "changed", b"longer than before")
            os.chmod(directory / "touched", 0o600)
            os.unlink(directory / "gone")
            os.rename(directory / "old", directory / "sub" / "new")
            write(directory / "other", b"x")
            os.rename(directory / "other", directory / "same-name")
            write(directory / "made", b"x")
            (directory / "removed").rmdir()
            os.chmod(directory / "watched", 0o600)
            changed.clear()
            server.start()
            await changed.wait()
            assert watcher.is_up
            os.mkdir(directory / "end")
            found = await until(instance, b"end")
            heard = sorted(
                (names[event.wd], said(event.mask), event.name.decode()) for event in found
            )
            assert heard == sorted(
                [
                    ("/", "MODIFY", "changed"),
                    ("/", "ATTRIB", "touched"),
                    ("/", "DELETE", "gone"),
                    ("/", "MOVED_FROM", "old"),
                    ("/sub", "MOVED_TO", "new"),
                    ("/", "DELETE", "same-name"),
                    ("/", "CREATE", "same-name"),
                    ("/", "CREATE", "made"),
                    ("/", "DELETE|ISDIR", "removed"),
                    ("/removed", "DELETE_SELF", ""),
                    ("/removed", "IGNORED", ""),
                    ("/", "ATTRIB", "watched"),
                    ("/watched", "ATTRIB", ""),
                ]
            )
            cookies = {event.cookie for event in found if event.mask & 0xC0}
            assert len(cookies) == 1
            assert cookies != {0}
            write(directory / "watched", b"after")
            os.mkdir(directory / "end2")
            later = await until(instance, b"end2")
            assert {(names[event.wd], said(event.mask)) for event in later} == {
                ("/", "MODIFY"),
                ("/", "CLOSE_WRITE"),
                ("/watched", "MODIFY"),
                ("/watched", "CLOSE_WRITE"),
            }
            await instance.close()

    with Served(kind, directory, tmp_path) as server:
        within(lambda: work(server), 60)


def test_a_watched_file_that_is_another_one(tmp_path: Path, directory: Path) -> None:
    write(directory / "file", b"x")

    async def work(server: Served) -> None:
        async with Watcher(server.url) as watcher:
            instance = watcher.inotify()
            await instance.add_watch("/file", IN_ALL_EVENTS & ~0x31)
            server.stop()
            write(directory / "new", b"y")
            os.rename(directory / "new", directory / "file")
            server.start()
            found: list[InotifyEvent] = []
            while len(found) < 2:
                found += await instance.read()
            assert [event.mask for event in found] == [IN_DELETE_SELF, IN_IGNORED]
            await instance.close()

    with Served("unix", directory, tmp_path) as server:
        within(lambda: work(server))
