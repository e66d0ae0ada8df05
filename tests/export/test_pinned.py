"""The export of a process that may not open nodes by their handles."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farwatch.events import Key, Place
from farwatch.export.attributes import SetAttr
from farwatch.export.nodes import NodeTable
from farwatch.export.noted import NotedExport
from farwatch.export.numbers import NO_HANDLE
from farwatch.export.pinned import PinnedExport
from farwatch.export.tree import Caller, Export
from farwatch.linux import mounts
from tests.linux import areas

_NOBODY = 65534
_QUIET = frozenset(
    (
        "attach",
        "attached",
        "birth_time",
        "close",
        "close_lone",
        "detach",
        "exists",
        "fsync",
        "fsyncdir",
        "getattr",
        "getattr_open",
        "getxattr",
        "has_acls",
        "hold",
        "inside",
        "is_mount_point",
        "keep",
        "let_go",
        "listxattr",
        "lookup",
        "lseek",
        "mount_at",
        "must_allow",
        "must_be_readable",
        "node_at",
        "place_of",
        "readlink",
        "root",
        "statfs",
        "syncfs",
    )
)
"""What raises no event of what is exported."""


@pytest.fixture
def export(tmp_path: Path) -> Iterator[PinnedExport]:
    with opened(tmp_path) as made:
        yield made


def opened(path: Path) -> PinnedExport:
    return PinnedExport(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def pins() -> int:
    """How many O_PATH descriptors this process has."""
    found = 0
    for name in os.listdir("/proc/self/fdinfo"):
        try:
            text = Path(f"/proc/self/fdinfo/{name}").read_text()
        except OSError:
            continue
        flags = next(line for line in text.splitlines() if line.startswith("flags:"))
        found += bool(int(flags.split()[1], 8) & os.O_PATH)
    return found


def test_a_node_is_pinned_for_as_long_as_the_client_knows_it(export: PinnedExport) -> None:
    before = pins()
    table = NodeTable(export.root_key, 1, holder=export)
    key, status = export.mkdir(export.root_key, b"d", 0o755, Caller(os.geteuid(), os.getegid(), 1))
    node = table.obtain(key, status.st_mode)
    node.lookups = 2
    assert pins() == before + 1
    assert stat.S_ISDIR(export.getattr(key).st_mode)
    table.forget(node.id, 1)
    assert export.exists(key)
    table.forget(node.id, 1)
    assert pins() == before
    assert not export.exists(key)
    assert export.lookup(export.root_key, b"d")[0] == key


def test_a_client_that_begins_anew_knows_nothing(export: PinnedExport, tmp_path: Path) -> None:
    before = pins()
    table = NodeTable(export.root_key, 1, holder=export)
    for name in (b"a", b"b"):
        (tmp_path / os.fsdecode(name)).mkdir()
        table.obtain(export.lookup(export.root_key, name)[0], stat.S_IFDIR)
    table.close()
    assert pins() == before
    assert export.root().st_ino == export.getattr(export.root_key).st_ino


def test_renames_are_followed_and_removals_are_not_held_up(
    export: PinnedExport, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    key, _ = export.lookup(export.root_key, b"a")
    export.keep(key)
    os.rename(tmp_path / "a", tmp_path / "b")
    assert export.getattr(key).st_size == 1
    assert not export.let_die(key)
    (tmp_path / "b").unlink()
    assert export.let_die(key)
    assert not export.let_die(key)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        export.getattr(key)


def test_what_was_only_looked_at_is_let_go_of(export: PinnedExport, tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / str(number)).touch()
    before = pins()
    for number in range(5000):
        assert export.look(Place(export.root_key, b"%d" % number)) is not None
    assert pins() - before <= 4096


def test_no_path_leads_out(export: PinnedExport, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    key, status = export.lookup(export.root_key, b"link")
    assert stat.S_ISLNK(status.st_mode)
    for attempt in (export.opendir, lambda node: export.lookup(node, b"passwd")):
        with pytest.raises(NotADirectoryError):
            attempt(key)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        export.open(key, os.O_RDONLY)
    for name in (b"a/b", b"", b"..x\0"):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            export.lookup(export.root_key, name)
    assert export.lookup(export.root_key, b"..")[0] == export.root_key


def known_by(export: PinnedExport, name: bytes) -> Key | None:
    """The key of a name that the client comes to know; None if there is no room for it."""
    try:
        key, _ = export.lookup(export.root_key, name)
    except OSError as error:
        if error.errno != errno.ENFILE:
            raise
        return None
    export.keep(key)
    return key


def in_full(home: Path) -> list[str]:
    """What is said when there are more files than descriptors, which is not the end."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("farwatch.export.pins").addHandler(handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    with opened(home) as export:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, 300)
        known = [key for number in range(400) if (key := known_by(export, b"%d" % number))]
        assert 0 < len(known) < 300
        assert known_by(export, b"399") is None
        os.close(export.open(known[0], os.O_RDONLY))
        export.let_go(known[0])
        assert known_by(export, b"399") is not None
    return said


def test_when_there_is_no_descriptor_left_it_is_said_once(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / str(number)).touch()
    said = areas.in_child(lambda: in_full(tmp_path))
    assert len(said) == 1
    assert "ulimit" in said[0]


def test_whatever_raises_events_is_noted() -> None:
    """What is new in Export has to be noted, or is quiet: a list that is kept by hand."""

    def methods(kind: type) -> set[str]:
        return {
            name
            for base in kind.__mro__
            for name, value in vars(base).items()
            if not name.startswith("_") and (callable(value) or isinstance(value, staticmethod))
        }

    noted = {name for name in vars(NotedExport) if not name.startswith("_")}
    assert methods(Export) - noted - _QUIET == set()


# As somebody who has no privileges ----------------------------------------------------------


def as_nobody(work: Callable[[], Any]) -> Any:
    def become() -> Any:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        os.umask(0)
        return work()

    return areas.in_child(become)


def do_everything(path: Path) -> None:
    us = Caller(_NOBODY, _NOBODY, 1)
    with opened(path) as export:
        root = export.root_key
        key, status, fd = export.create(root, b"a", 0o640, os.O_RDWR, us)
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (_NOBODY, 0o640)
        export.keep(key)
        assert export.write_from(fd, [memoryview(b"hello")], 0) == 5
        os.close(fd)
        export.setattr(key, None, SetAttr(mode=0o600, size=3, mtime_ns=1), us)
        export.setxattr(key, b"user.x", b"1", 0, us)
        assert export.getxattr(key, b"user.x") == b"1"
        directory, _ = export.mkdir(root, b"d", 0o755, us)
        export.link(key, directory, b"l")
        export.symlink(directory, b"s", b"nowhere", us)
        export.mknod(directory, b"f", stat.S_IFIFO | 0o600, 0, us)
        assert export.readlink(export.lookup(directory, b"s")[0]) == b"nowhere"
        made, _, unnamed = export.tmpfile(root, 0o600, os.O_RDWR, us)
        export.held = lambda node: unnamed if node == made else None
        export.link(made, root, b"t")
        export.held = lambda node: None
        os.close(unnamed)
        assert export.getattr(made).st_nlink == 1
        export.rename(directory, b"l", root, b"m", 0)
        assert export.place_of(directory) == Place(root, b"d")
        assert export.inside(directory)
        assert export.lookup(directory, b"..")[0] == root
        with export.opendir(directory) as listed:
            assert {entry.name for entry in listed.read(0, 4096)} == {b".", b"..", b"s", b"f"}
        fd = export.open(key, os.O_RDONLY)
        assert export.read_at(fd, 10, 0) == b"hel"
        os.close(fd)
        export.unlink(root, b"m")
        export.unlink(root, b"a")
        assert export.let_die(key)
        assert not export.exists(key)


def be_refused(path: Path) -> None:
    us, root_user = Caller(_NOBODY, _NOBODY, 1), Caller(0, 0, 1)
    with opened(path) as export:
        key, _ = export.lookup(export.root_key, b"others")
        with pytest.raises(PermissionError):
            export.open(key, os.O_RDONLY)
        with pytest.raises(PermissionError):
            export.setattr(key, None, SetAttr(mode=0o777), us)
        with pytest.raises(PermissionError):
            export.mkdir(export.root_key, b"d", 0o755, Caller(1000, 1000, 1))
        with pytest.raises(PermissionError):
            export.setattr(key, None, SetAttr(size=0), root_user)


@pytest.mark.root
@pytest.mark.parametrize("place", ["disk", "tmpfs"])
def test_an_ordinary_user_can_do_everything(place: str) -> None:
    with areas.directory() if place == "disk" else areas.tmpfs() as path:
        os.chmod(path.parent, os.stat(path.parent).st_mode | 0o055)
        work = path / "work"
        work.mkdir()
        os.chmod(path, 0o755)
        os.chown(work, _NOBODY, _NOBODY)
        as_nobody(lambda: do_everything(work))


@pytest.mark.root
def test_an_ordinary_user_is_refused_what_is_not_his() -> None:
    with areas.directory() as path:
        os.chmod(path, 0o777)
        (path / "others").write_bytes(b"secret")
        os.chmod(path / "others", 0o600)
        as_nobody(lambda: be_refused(path))
        assert (path / "others").read_bytes() == b"secret"


# Without file handles ------------------------------------------------------------------------


def kind_of(key: Key) -> int:
    return int.from_bytes(key[12:16], "little")


@pytest.mark.root
def test_a_file_system_without_handles() -> None:
    with areas.directory() as home:
        for name in ("lower", "upper", "work", "all"):
            (home / name).mkdir()
        (home / "upper" / "d").mkdir()
        options = f"lowerdir={home}/lower,upperdir={home}/upper,workdir={home}/work,index=off"
        mounts.mount(b"overlay", bytes(home / "all"), b"overlay", 0, options.encode())
        try:
            with opened(home / "all") as export:
                look_around(export, home / "all")
        finally:
            mounts.umount(bytes(home / "all"), mounts.MNT_DETACH)


def look_around(export: PinnedExport, path: Path) -> None:
    root = export.root_key
    assert kind_of(root) == NO_HANDLE
    directory, _ = export.lookup(root, b"d")
    key, _ = export.mknod(directory, b"f", stat.S_IFREG | 0o600, 0, Caller(0, 0, 1))
    assert kind_of(key) == NO_HANDLE
    export.keep(key)
    assert export.node_at(directory, b"f") == key
    assert export.place_of(directory) == Place(root, b"d")
    os.rename(path / "d" / "f", path / "g")
    assert export.getattr(key).st_ino == (path / "g").stat().st_ino
    assert export.lookup(root, b"g")[0] == key
    (path / "g").unlink()
    assert export.let_die(key)
    (path / "g").touch()
    assert export.node_at(root, b"g") != key
