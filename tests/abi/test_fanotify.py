"""Parsing of what fanotify delivers, and the table of what it reports."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from farwatch.abi.fanotify import parse
from farwatch.events import READING, Key, Mask, Place, Record
from farwatch.linux import files, handles
from farwatch.sources.fanotify import FanotifySource
from tests.linux import areas

FSID = b"fsidfsid"
FILE = struct.pack("=Ii", 8, 1) + b"childkey"
DIRECTORY = struct.pack("=Ii", 12, 0x81) + b"directorykey"
OTHER = struct.pack("=Ii", 12, 0x81) + b"otherdirkey1"


def info(kind: int, handle: bytes, name: bytes | None = None) -> bytes:
    body = FSID + handle
    if name is not None:
        body += name + b"\0"
        body += bytes(-(len(body) + 4) % 4)
    return struct.pack("=BxH", kind, 4 + len(body)) + body


def event(mask: int, thread: int, *infos: bytes) -> bytes:
    body = b"".join(infos)
    return struct.pack("=IBxHQii", 24 + len(body), 3, 24, mask, -1, thread) + body


def test_parses_each_kind_of_record() -> None:
    data = (
        event(Mask.CREATE, 7, info(2, DIRECTORY, b"name"), info(1, FILE))
        + event(Mask.DELETE_SELF, 8, info(1, FILE))
        + event(Mask.RENAME, 9, info(10, DIRECTORY, b"a"), info(12, OTHER, b"bcd"), info(1, FILE))
        + event(Mask.Q_OVERFLOW, 0)
        + event(Mask.ATTRIB | Mask.ISDIR, 1, info(2, DIRECTORY, b"."))
    )
    directory, other, child = FSID + DIRECTORY, FSID + OTHER, FSID + FILE
    assert parse(data) == [
        Record(Mask.CREATE, 7, Place(directory, b"name"), child),
        Record(Mask.DELETE_SELF, 8, None, child),
        Record(Mask.RENAME, 9, Place(directory, b"a"), child, Place(other, b"bcd")),
        Record(Mask.Q_OVERFLOW, 0, None, None),
        Record(Mask.ATTRIB | Mask.ISDIR, 1, Place(directory, b"."), directory),
    ]
    assert all(type(record) is Record for record in parse(data))


def test_a_node_that_could_not_be_encoded_is_none() -> None:
    data = event(Mask.CREATE, 7, info(2, DIRECTORY, b"name"), info(1, struct.pack("=Ii", 0, 255)))
    assert parse(data) == [Record(Mask.CREATE, 7, Place(FSID + DIRECTORY, b"name"), None)]


def test_unknown_info_is_passed_over() -> None:
    pidfd = struct.pack("=BxHi", 4, 8, 5)
    data = event(Mask.CREATE, 7, pidfd, info(2, DIRECTORY, b"name"), info(1, FILE))
    assert parse(data) == [Record(Mask.CREATE, 7, Place(FSID + DIRECTORY, b"name"), FSID + FILE)]


def test_refuses_what_is_no_whole_event() -> None:
    data = event(Mask.CREATE, 7, info(2, DIRECTORY, b"name"), info(1, FILE))
    for cut in range(1, len(data)):
        with pytest.raises(ValueError, match="fanotify"):
            parse(data[:cut])


# --- what the kernel reports ----------------------------------------------


class Scene:
    """A directory ``d`` that a group watches, and the names of the keys in it."""

    def __init__(self, path: Path, source: FanotifySource, fd: int) -> None:
        self.path = path
        self.source = source
        self.fd = fd
        self.fsid = handles.fsid(fd)
        self.keys: dict[Key, str] = {self.key(b""): "d"}
        self.held: list[int] = []

    def key(self, name: bytes) -> Key:
        return self.fsid + handles.name_to_handle(self.fd, name, empty_path=not name)[0]

    def know(self, name: str, label: str) -> None:
        self.keys[self.key(name.encode())] = label

    def make(self, *names: str) -> None:
        for name in names:
            (self.path / name).write_bytes(b"x")
            self.know(name, name)

    def mkdir(self, *names: str) -> None:
        for name in names:
            (self.path / name).mkdir()
            self.know(name, name)

    def hold(self, name: str, flags: int = os.O_WRONLY) -> int:
        self.held.append(os.open(name, flags, dir_fd=self.fd))
        return self.held[-1]

    def let_go(self) -> None:
        while self.held:
            os.close(self.held.pop())

    def told(self, learn: str = "") -> list[str]:
        """What was reported since, as in the table."""
        for name in learn.split():
            self.know(name, name)
        me = os.getpid()
        return [self._shown(record) for record in self.source.read() if record.thread == me]

    def _shown(self, record: Record) -> str:
        kinds = [kind.name or "" for kind in Mask if record.mask & kind]
        places = self._place(record.place)
        if record.new_place is not None:
            places += " " + self._place(record.new_place)
        assert record.node is not None
        return f"{' '.join(kinds)} | {places} | {self.keys.get(record.node, '?')}"

    def _place(self, place: Place | None) -> str:
        if place is None:
            return "-"
        return f"{self.keys.get(place.directory, '?')}/{os.fsdecode(place.name)}"


AREAS: dict[str, Callable[[], AbstractContextManager[Path]]] = {
    "ext4": areas.directory,
    "tmpfs": areas.tmpfs,
}


@pytest.fixture(params=AREAS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with AREAS[request.param]() as base:
        path = base / "d"
        path.mkdir()
        with areas.opened(path) as fd, FanotifySource.open(fd) as source:
            source.want(READING)
            scene = Scene(path, source, fd)
            try:
                yield scene
            finally:
                scene.let_go()


Act = Callable[[Scene], object]


def nothing(scene: Scene) -> None:
    pass


def steps(*acts: Act) -> Act:
    def all_of_them(scene: Scene) -> None:
        for act in acts:
            act(scene)

    return all_of_them


def let_go(scene: Scene) -> None:
    scene.let_go()


def created(scene: Scene) -> None:
    scene.hold("a", os.O_CREAT | os.O_WRONLY)
    scene.let_go()


def bound(scene: Scene) -> None:
    os.mknod("a", 0o140600, dir_fd=scene.fd)


def linked(scene: Scene) -> None:
    scene.make("a")
    os.link("a", "b", src_dir_fd=scene.fd, dst_dir_fd=scene.fd)


def held(scene: Scene) -> None:
    scene.make("a")
    scene.hold("a")


def times(atime: int, mtime: int) -> Act:
    return lambda s: files.utimensat(s.fd, b"a", atime, mtime)


def rename(flags: int, new: bytes = b"b") -> Act:
    return lambda s: files.renameat2(s.fd, b"a", s.fd, new, flags)


def one(scene: Scene) -> None:
    scene.make("a")


def two(scene: Scene) -> None:
    scene.make("a", "b")
    scene.keys[scene.key(b"b")] = "old"


def two_linked(scene: Scene) -> None:
    two(scene)
    os.link("b", "c", src_dir_fd=scene.fd, dst_dir_fd=scene.fd)


def sub(scene: Scene) -> None:
    scene.mkdir("s")


def two_subs(scene: Scene) -> None:
    scene.mkdir("s", "t")
    scene.keys[scene.key(b"t")] = "old"


def unlink(scene: Scene) -> None:
    os.unlink("a", dir_fd=scene.fd)


def rmdir(scene: Scene) -> None:
    os.rmdir("s", dir_fd=scene.fd)


def hold_b(scene: Scene) -> None:
    scene.hold("b")


def hold_s(scene: Scene) -> None:
    scene.hold("s", os.O_RDONLY)


TABLE: dict[str, tuple[Act, Act, list[str]]] = {
    "create": (nothing, created, ["CLOSE_WRITE OPEN CREATE | d/a | a"]),
    "write": (held, lambda s: os.write(s.held[0], b"y"), ["MODIFY | d/a | a"]),
    "ftruncate": (held, lambda s: os.ftruncate(s.held[0], 0), ["MODIFY | d/a | a"]),
    "truncate": (one, lambda s: os.truncate(s.path / "a", 0), ["MODIFY | d/a | a"]),
    "fallocate": (held, lambda s: files.fallocate(s.held[0], 0, 0, 99), ["MODIFY | d/a | a"]),
    "read": (one, lambda s: (s.path / "a").read_bytes(), ["ACCESS CLOSE_NOWRITE OPEN | d/a | a"]),
    "O_TRUNC": (
        one,
        steps(lambda s: s.hold("a", os.O_WRONLY | os.O_TRUNC), let_go),
        ["MODIFY CLOSE_WRITE OPEN | d/a | a"],
    ),
    "fifo": (
        lambda s: os.mkfifo("a", dir_fd=s.fd),
        steps(lambda s: s.hold("a", os.O_RDWR), let_go),
        ["CLOSE_WRITE OPEN | d/a | a"],
    ),
    "chmod": (one, lambda s: os.chmod("a", 0o600, dir_fd=s.fd), ["ATTRIB | d/a | a"]),
    "chown": (one, lambda s: os.chown("a", 1, 1, dir_fd=s.fd), ["ATTRIB | d/a | a"]),
    "times": (one, times(files.NOW, files.NOW), ["ATTRIB | d/a | a"]),
    "times, given": (one, times(5, 6), ["ATTRIB | d/a | a"]),
    "mtime": (one, times(files.OMIT, files.NOW), ["MODIFY | d/a | a"]),
    "atime": (one, times(files.NOW, files.OMIT), ["ACCESS | d/a | a"]),
    "no time": (one, times(files.OMIT, files.OMIT), []),
    "setxattr": (
        one,
        lambda s: os.setxattr(s.path / "a", "trusted.x", b"1"),
        ["ATTRIB | d/a | a"],
    ),
    "symlink": (nothing, lambda s: os.symlink("x", "a", dir_fd=s.fd), ["CREATE | d/a | a"]),
    "mkfifo": (nothing, lambda s: os.mkfifo("a", dir_fd=s.fd), ["CREATE | d/a | a"]),
    "socket": (nothing, bound, ["CREATE | d/a | a"]),
    "link": (
        one,
        lambda s: os.link("a", "b", src_dir_fd=s.fd, dst_dir_fd=s.fd),
        ["ATTRIB | - | a", "CREATE | d/b | a"],
    ),
    "chmod by the other link": (
        linked,
        lambda s: os.chmod("b", 0o600, dir_fd=s.fd),
        ["ATTRIB | d/b | a"],
    ),
    "unlink": (
        one,
        unlink,
        ["ATTRIB DELETE_SELF | - | a", "DELETE | d/a | a"],
    ),
    "unlink, links left": (
        linked,
        unlink,
        ["ATTRIB | - | a", "DELETE | d/a | a"],
    ),
    "unlink, open": (
        held,
        unlink,
        ["ATTRIB | - | a", "DELETE | d/a | a"],
    ),
    "write, unlinked": (
        steps(held, unlink),
        lambda s: os.write(s.held[0], b"y"),
        ["MODIFY | d/a | a"],
    ),
    "fchmod, unlinked": (
        steps(held, unlink),
        lambda s: os.fchmod(s.held[0], 0o600),
        ["ATTRIB | d/a | a"],
    ),
    "last close": (
        steps(held, unlink),
        let_go,
        ["CLOSE_WRITE | d/a | a", "DELETE_SELF | - | a"],
    ),
    "rename": (one, rename(0), ["RENAME | d/a d/b | a"]),
    "rename over": (two, rename(0), ["RENAME | d/a d/b | a", "ATTRIB DELETE_SELF | - | old"]),
    "rename over, links left": (
        two_linked,
        rename(0),
        ["RENAME | d/a d/b | a", "ATTRIB | - | old"],
    ),
    "rename over, open": (
        steps(two, hold_b),
        rename(0),
        ["RENAME | d/a d/b | a", "ATTRIB | - | old"],
    ),
    "last close of the replaced": (
        steps(two, hold_b, rename(0)),
        let_go,
        ["CLOSE_WRITE | d/b | old", "DELETE_SELF | - | old"],
    ),
    "rename to its own link": (linked, rename(0), []),
    "exchange": (
        two,
        rename(files.RENAME_EXCHANGE),
        ["RENAME | d/a d/b | a", "RENAME | d/b d/a | old"],
    ),
    "whiteout": (one, rename(files.RENAME_WHITEOUT), ["RENAME | d/a d/b | a"]),
    "rename to another directory": (
        steps(one, sub),
        rename(0, b"s/b"),
        ["RENAME | d/a s/b | a"],
    ),
    "mkdir": (nothing, lambda s: os.mkdir("a", dir_fd=s.fd), ["CREATE ISDIR | d/a | a"]),
    "rmdir": (
        sub,
        rmdir,
        ["DELETE_SELF ISDIR | s/. | s", "DELETE ISDIR | d/s | s"],
    ),
    "rmdir, open": (
        steps(sub, hold_s),
        rmdir,
        ["DELETE ISDIR | d/s | s"],
    ),
    "last close of a directory": (
        steps(sub, hold_s, rmdir),
        let_go,
        ["CLOSE_NOWRITE DELETE_SELF ISDIR | s/. | s"],
    ),
    "rename a directory": (
        sub,
        lambda s: files.renameat2(s.fd, b"s", s.fd, b"t"),
        ["RENAME ISDIR | d/s d/t | s"],
    ),
    "rename a directory over": (
        two_subs,
        lambda s: files.renameat2(s.fd, b"s", s.fd, b"t"),
        ["RENAME ISDIR | d/s d/t | s", "ATTRIB DELETE_SELF ISDIR | old/. | old"],
    ),
    "chmod of a directory": (
        sub,
        lambda s: os.chmod("s", 0o700, dir_fd=s.fd),
        ["ATTRIB ISDIR | s/. | s"],
    ),
    "open of a directory": (
        sub,
        steps(hold_s, let_go),
        ["CLOSE_NOWRITE OPEN ISDIR | s/. | s"],
    ),
    "listing of a directory": (
        sub,
        lambda s: os.listdir(s.path / "s"),
        ["ACCESS CLOSE_NOWRITE OPEN ISDIR | s/. | s"],
    ),
    "the watched directory itself": (
        nothing,
        lambda s: os.fchmod(s.fd, 0o700),
        ["ATTRIB ISDIR | d/. | d"],
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("act", TABLE)
def test_table(scene: Scene, act: str) -> None:
    before, change, expected = TABLE[act]
    before(scene)
    with contextlib.suppress(FileNotFoundError):
        scene.know("a", "a")
    scene.source.read()
    change(scene)
    with contextlib.suppress(FileNotFoundError):
        scene.keys.setdefault(scene.key(b"a"), "a")
    assert scene.told() == expected


@pytest.mark.root
def test_table_for_a_temporary_file(scene: Scene) -> None:
    fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, dir_fd=scene.fd)
    scene.held.append(fd)
    os.write(fd, b"x")
    number = os.fstat(fd).st_ino
    key = scene.fsid + handles.name_to_handle(fd, b"", empty_path=True)[0]
    scene.keys[key] = "a"
    assert scene.told() == [f"MODIFY OPEN | d/#{number} | a"]
    files.linkat(fd, b"", scene.fd, b"T", files.AT_EMPTY_PATH)
    assert scene.told() == ["ATTRIB | - | a", "CREATE | d/T | a"]
    scene.let_go()
    assert scene.told() == [f"CLOSE_WRITE | d/#{number} | a"]


@pytest.mark.root
def test_the_root_of_a_file_system_is_a_directory_as_any() -> None:
    with (
        areas.tmpfs() as base,
        areas.opened(base) as fd,
        FanotifySource.open(fd) as source,
    ):
        key = handles.fsid(fd) + handles.name_to_handle(fd, b"", empty_path=True)[0]
        os.fchmod(fd, 0o700)
        assert source.read() == [
            Record(Mask.ATTRIB | Mask.ISDIR, os.getpid(), Place(key, b"."), key)
        ]


@pytest.mark.root
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_the_key_is_what_name_to_handle_gives(fstype: str) -> None:
    with areas.image(fstype) as base:
        check_keys(base)


@pytest.mark.root
def test_the_key_is_what_name_to_handle_gives_on_tmpfs() -> None:
    with areas.tmpfs() as base:
        check_keys(base)


def check_keys(base: Path) -> None:
    with areas.opened(base) as fd, FanotifySource.open(fd) as source:
        os.mkdir("sub", dir_fd=fd)
        (base / "sub" / "file").touch()
        fsid = handles.fsid(fd)
        top = fsid + handles.name_to_handle(fd, b"", empty_path=True)[0]
        sub = fsid + handles.name_to_handle(fd, b"sub")[0]
        file = fsid + handles.name_to_handle(fd, b"sub/file")[0]
        made = [(record.place, record.node) for record in source.read()]
        assert made == [(Place(top, b"sub"), sub), (Place(sub, b"file"), file)]


def test_is_fast() -> None:
    """20,000 creations; about 25 ms here.  The limit is for a machine that is busy."""
    data = b"".join(
        event(Mask.CREATE, 7, info(2, DIRECTORY, b"name%05d" % i), info(1, FILE))
        for i in range(20_000)
    )
    best = min(measured(data) for _ in range(5))
    assert best < 0.2


def measured(data: bytes) -> float:
    start = time.perf_counter()
    assert len(parse(data)) == 20_000
    return time.perf_counter() - start
