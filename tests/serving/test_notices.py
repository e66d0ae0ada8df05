"""Notifications where the transport only sends, as at /dev/fuse: by one thread, in order."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.export.tree import Export
from farwatch.serving.server import Server, open_modes
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from farwatch.sources.fanotify import FanotifySource
from tests.mounting.mounted import wait_until
from tests.session.fsnotify.client import (
    ALL,
    BEGIN,
    HAVE_FSNOTIFY,
    LOCAL_SOURCE,
    MARK,
    MERGED,
    REMOTE,
    End,
    Told,
    joined,
    kinds,
    notices,
)
from tests.session.kernel import FLAGS2_6_18, FLAGS_6_18, GENERATION, HIDDEN, ROOT, Kernel
from tests.session.memory import MemoryDisk

pytestmark = pytest.mark.root


class Sent:
    """What was sent: late answers, and notifications with the thread that sent them."""

    def __init__(self) -> None:
        self.notices: list[tuple[int, Reply]] = []
        self.answers: dict[int, tuple[int, bytes]] = {}

    def send(self, reply: Reply) -> None:
        data = joined(reply)
        _, error, unique = struct.unpack_from("<IiQ", data)
        if unique:
            self.answers[unique] = (-error, data[16:])
        else:
            self.notices.append((threading.get_native_id(), reply))


class Scene:
    """A client with marks."""

    def __init__(
        self, server: Server, source: FanotifySource, sent: Sent, *, is_threaded: bool
    ) -> None:
        self.server = server
        self.source = source
        self.is_threaded = is_threaded
        self.kernel = Kernel(MemoryDisk(), server.session)
        self.sent = sent

    def ask(self, opcode: int, body: bytes) -> bytes:
        answer = self.kernel.try_ask(opcode, ROOT, body)
        self.server.after()
        if answer is not None:
            return answer
        unique = self.kernel.last_unique
        wait_until(lambda: self._is_answered(unique), "an answer")
        number, payload = self.sent.answers.pop(unique)
        assert not number
        return payload

    def _is_answered(self, unique: int) -> bool:
        if not self.is_threaded and self.source.queued():
            # As a transport does that waits for the source as well: something else has happened
            # on this file system, and the answer comes behind it.
            self.server.drain()
            self.server.after()
        return unique in self.sent.answers

    def heard(self) -> list[Told | End]:
        return notices(b"".join(joined(reply) for _, reply in list(self.sent.notices)))


@contextmanager
def serving(
    directory: Path, *, mode: int = REMOTE, is_threaded: bool = True, is_silent: bool = False
) -> Iterator[Scene]:
    before = os.umask(0)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with FanotifySource.open(fd) as source, Export(fd) as export:
            if is_silent:
                source.silence(fd)
            modes = open_modes(export)
            session = Session(export, Settings(GENERATION, HIDDEN), export, modes.mode)
            sent = Sent()
            with Server(
                export,
                source,
                session,
                modes,
                sent.send,
                is_threaded=is_threaded,
            ) as server:
                scene = Scene(server, source, sent, is_threaded=is_threaded)
                scene.kernel.init(45, FLAGS_6_18, FLAGS2_6_18 | HAVE_FSNOTIFY)
                scene.ask(BEGIN, struct.pack("<IIII", 1, mode, 0, 0))
                yield scene
    finally:
        os.umask(before)


def mask(wanted: int) -> bytes:
    return struct.pack("<QII", 0, wanted, 0)


def test_one_thread_sends_all_of_them(tmp_path: Path) -> None:
    """Also an ending, which a request brings about."""
    with serving(tmp_path) as scene:
        for number in range(20):
            scene.ask(MARK, mask(0x100))
            (tmp_path / f"f{number}").mkdir()
            scene.ask(MARK, mask(0))
        wait_until(lambda: len(scene.heard()) >= 40, "all of them")
        heard = scene.heard()
        assert kinds(heard) == [
            text for number in range(20) for text in (f"CREATE f{number}", "ENDED(REMOVED)")
        ]
        assert [each.sequence for each in heard] == list(range(1, 41))
        threads = {thread for thread, _ in scene.sent.notices}
        assert len(threads) == 1
        assert threads != {threading.get_native_id()}


def test_without_a_thread_for_the_source_the_server_sends_them(tmp_path: Path) -> None:
    with serving(tmp_path, is_threaded=False) as scene:
        scene.ask(MARK, mask(0x100))
        (tmp_path / "x").mkdir()
        scene.server.drain()
        scene.server.after()
        scene.ask(MARK, mask(0))
        assert kinds(scene.heard()) == ["CREATE x", "ENDED(REMOVED)"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(REMOTE, ["OPEN f", "ACCESS f", "CLOSE_NOWRITE f"]), (MERGED, [])],
)
def test_content_that_passes_the_server_s_mount_is_heard_where_it_is_to_be_told(
    tmp_path: Path, mode: int, expected: list[str]
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with serving(tmp_path, mode=mode, is_silent=True) as scene:
        scene.ask(MARK, mask(ALL))
        assert scene.source.is_silent == (mode == MERGED)
        node = scene.kernel.lookup("f").node
        opened = scene.kernel.open(node)
        scene.kernel.read(node, opened.fh)
        scene.kernel.release(node, opened.fh)
        scene.ask(MARK, mask(0))
        wait_until(lambda: "ENDED(REMOVED)" in kinds(scene.heard()), "the end")
        heard = scene.heard()
        assert kinds(heard) == [*expected, "ENDED(REMOVED)"]
        assert {each.source for each in heard if isinstance(each, Told)} <= {LOCAL_SOURCE}


def test_silence_is_back_for_a_client_without_marks(tmp_path: Path) -> None:
    with serving(tmp_path, is_silent=True) as scene:
        assert not scene.source.is_silent
        scene.kernel.init()
        scene.server.after()
        assert scene.source.is_silent
