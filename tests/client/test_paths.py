"""Results and errnos of calls by path, beside those of the system on the same tree.

The client works on an export of a real directory, so whatever is wrong is the client's.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from farwatch.client.errors import Misuse
from farwatch.client.walking import Walk
from farwatch.export.tree import Export
from farwatch.session.session import Session
from tests.client.inprocess import InProcess
from tests.client.two import Calls, Client, Native, put
from tests.session import kernel as dummy
from tests.session.memory import MemoryDisk

RW, RO, CREAT, EXCL = os.O_RDWR, os.O_RDONLY, os.O_CREAT, os.O_EXCL
LONG = "n" * 256


def tree(calls: Calls, *, with_links: bool = True) -> None:
    """What every call finds.  Symbolic links are relative, for natively "/" is elsewhere."""
    calls.mkdir("d")
    calls.mkdir("d/e")
    calls.mkdir("empty")
    put(calls, "f", b"content")
    put(calls, "d/g", b"g")
    calls.mknod("fifo", 0o010644)
    calls.symlink("f", "to-f")
    calls.symlink("d", "to-d")
    calls.symlink("d/", "to-d-slash")
    calls.symlink("f/", "to-f-slash")
    calls.symlink("nowhere", "dangling")
    calls.symlink("d/new", "dangling-in-d")
    calls.symlink("circle2", "circle1")
    calls.symlink("circle1", "circle2")
    calls.symlink("../f", "d/up")
    calls.symlink("to-d/up", "chain")
    calls.symlink("nodir/x", "dangling-deep")
    if with_links:
        links(calls)


def links(calls: Calls) -> None:
    """A chain of 46 symbolic links: 40 of them can be followed."""
    calls.mkdir("links")
    for index in range(45):
        calls.symlink(f"s{index + 1}", f"links/s{index}")
    calls.symlink("../f", "links/s45")


def use(calls: Calls, path: str, flags: int) -> object:
    file = calls.open(path, flags)
    try:
        return file.size()
    finally:
        file.close()


PATHS = [
    "", "/", ".", "..", "d", "d/", "/d", "//d//e//", "d/.", "d/..", "d/../f", "d/e/../../f",
    "f", "f/", "f/.", "f/..", "f/x", "nothing", "nothing/", "nothing/x", "to-f", "to-f/", "to-d",
    "to-d/", "to-d/g", "to-d/..", "to-d-slash", "to-d-slash/g", "to-f-slash", "dangling",
    "dangling/", "circle1", "circle1/x", "d/up", "chain", "links/s5", "links/s6", "links/s0",
    "fifo", "fifo/", LONG, "d/" + LONG, LONG + "/x", "x/" * 2100, "dangling-in-d",
    "dangling-deep", "empty",
]  # fmt: skip

CALLS: dict[str, Callable[[Calls, str], object]] = {
    "stat": lambda c, p: c.stat(p),
    "lstat": lambda c, p: c.stat(p, follow=False),
    "readlink": lambda c, p: c.readlink(p),
    "listdir": lambda c, p: c.listdir(p),
    "mkdir": lambda c, p: c.mkdir(p),
    "mknod": lambda c, p: c.mknod(p),
    "symlink": lambda c, p: c.symlink("f", p),
    "link to": lambda c, p: c.link("f", p),
    "link of": lambda c, p: c.link(p, "new"),
    "link followed": lambda c, p: c.link(p, "new", follow=True),
    "rmdir": lambda c, p: c.rmdir(p),
    "rename to": lambda c, p: c.rename("f", p),
    "rename a directory to": lambda c, p: c.rename("empty", p),
    "rename from": lambda c, p: c.rename(p, "new"),
    "rename from to a slash": lambda c, p: c.rename(p, "new/"),
    "rename, not replacing": lambda c, p: c.rename("f", p, 1),
    "exchange": lambda c, p: c.rename("d/g", p, 2),
    "rename with flags that are none": lambda c, p: c.rename("f", p, 3),
    "chmod": lambda c, p: c.chmod(p, 0o600),
    "chown": lambda c, p: c.chown(p, 1, 1),
    "lchown": lambda c, p: c.chown(p, 1, 1, follow=False),
    "utime": lambda c, p: c.utime(p, 1, 1),
    "truncate": lambda c, p: c.truncate(p, 0),
    "setxattr": lambda c, p: c.setxattr(p, "user.x", b"1"),
    "getxattr": lambda c, p: c.getxattr(p, "user.x"),
    "removexattr": lambda c, p: c.removexattr(p, "user.x"),
    "open": lambda c, p: use(c, p, RO),
    "open to write": lambda c, p: use(c, p, RW),
    "open, not following": lambda c, p: use(c, p, RW | os.O_NOFOLLOW),
    "create": lambda c, p: use(c, p, RW | CREAT),
    "create, not following": lambda c, p: use(c, p, RW | CREAT | os.O_NOFOLLOW),
    "create exclusively": lambda c, p: use(c, p, RW | CREAT | EXCL),
    "create truncating": lambda c, p: use(c, p, RW | CREAT | os.O_TRUNC),
    "create a directory": lambda c, p: use(c, p, RW | CREAT | os.O_DIRECTORY),
}  # fmt: skip
_OPENING = {name for name in CALLS if name.startswith(("open", "create"))}
_DIFFERENT = {
    # The client opens no directory as a file, and no fifo.
    (name, path)
    for name in _OPENING
    for path in ("/", ".", "..", "d", "d/", "/d", "//d//e//", "d/.", "d/..", "to-d", "to-d/",
                 "to-d/..", "to-d-slash", "empty", "fifo")
} | {
    # Natively the tested directory is not the root, and ".." is another one.
    (name, path) for name in CALLS for path in ("..", "/")
}  # fmt: skip


class OnDisk(InProcess):
    """The client on an export of a real directory."""

    def __init__(self, root: Path) -> None:
        self.export = Export(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        session = Session(self.export, dummy.settings(), self.export, lambda thread, key: None)
        session.is_behind = lambda: False
        super().__init__(cast("MemoryDisk", None), session=session)

    def close(self) -> None:
        self.session.close()
        self.export.close()


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[tuple[Native, OnDisk]]:
    umask = os.umask(0o022)
    for name in ("native", "export"):
        (tmp_path / name).mkdir()
        tree(Native(tmp_path / name))
    os.umask(0)
    there = OnDisk(tmp_path / "export")
    try:
        yield Native(tmp_path / "native"), there
    finally:
        there.close()
        os.umask(umask)


def outcome(call: Callable[[Calls, str], object], calls: Calls, path: str) -> object:
    try:
        return call(calls, path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {"links": (0, 0, b" ".join(sorted(os.listdir(os.fsencode(root / "links")))))}
    for path in _paths(root):
        status = path.lstat()
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path).encode()
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        nlink = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        found[str(path.relative_to(root))] = (status.st_mode, nlink, content)
    return found


def _paths(root: Path) -> list[Path]:
    """All but the chain of links."""
    return [path for path in sorted(root.rglob("*")) if path.parent.name != "links"]


@pytest.mark.root
@pytest.mark.parametrize("name", CALLS)
def test_every_kind_of_path(name: str, tmp_path: Path, beside: tuple[Native, OnDisk]) -> None:
    native, there = beside
    client = Client(there)
    wrong = {}
    fresh = snapshot(native.root)
    for path in PATHS:
        if (name, path) in _DIFFERENT:
            continue
        os.umask(0o022)
        right = outcome(CALLS[name], native, path)
        os.umask(0)
        found = outcome(CALLS[name], client, path)
        if found != right or snapshot(native.root) != snapshot(tmp_path / "export"):
            wrong[path] = (found, right)
        for root in ("native", "export"):
            if snapshot(tmp_path / root) != fresh:
                restore(tmp_path / root)
        assert there.known == 1, path
        assert len(there.kernel.inodes) == 1, path
    assert not wrong


def restore(root: Path) -> None:
    """The tree as it was."""
    os.umask(0o022)
    chain = root / "links"
    is_whole = chain.is_dir() and len(os.listdir(chain)) == 46
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != "links" or not is_whole:
                shutil.rmtree(path)
        else:
            path.unlink()
    tree(Native(root), with_links=not is_whole)


@pytest.mark.root
def test_directories_and_fifos_are_not_files(beside: tuple[Native, OnDisk]) -> None:
    calls = Client(beside[1])
    for path, flags, right in (
        ("d", RO, errno.EISDIR),
        ("d", RW, errno.EISDIR),
        ("d/", RW | CREAT, errno.EISDIR),
        ("to-d", RW | CREAT, errno.EISDIR),
        ("fifo", RO, errno.ENXIO),
        ("f", RO | os.O_DIRECTORY, errno.ENOTDIR),
        ("f", RO | os.O_PATH, errno.EINVAL),
        ("d", RW | os.O_TMPFILE, errno.EOPNOTSUPP),
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011 - which is below
            calls.open(path, flags)
        assert refused.value.errno == right, path


@pytest.mark.root
def test_content_through_odd_paths(beside: tuple[Native, OnDisk]) -> None:
    """An absolute symbolic link begins at the export's root."""
    there = beside[1]
    calls = Client(there)
    calls.symlink("/d/g", "d/absolute")
    calls.symlink("/../../d/./g", "d/far")
    for path in ("d/absolute", "to-d/far", "/../../d/g"):
        file = calls.open(path, RO)
        assert file.read(10) == b"g"
        file.close()


@pytest.mark.root
def test_root_is_no_name(beside: tuple[Native, OnDisk]) -> None:
    calls = Client(beside[1])
    cases: list[tuple[Callable[[], object], int]] = [
        (lambda: calls.rmdir("/"), errno.EBUSY),
        (lambda: calls.unlink("/"), errno.EISDIR),
        (lambda: calls.unlink(".."), errno.EISDIR),
        (lambda: calls.mkdir("/"), errno.EEXIST),
        (lambda: calls.rename("/", "x"), errno.EBUSY),
        (lambda: calls.rename("f", "/"), errno.EBUSY),
    ]
    for call, right in cases:
        with pytest.raises(OSError) as refused:  # noqa: PT011 - which is below
            call()
        assert refused.value.errno == right


@pytest.mark.root
@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("..", "/", ".")])
def test_unlink(path: str, tmp_path: Path, beside: tuple[Native, OnDisk]) -> None:
    native, there = beside
    right = outcome(lambda c, p: c.unlink(p), native, path)
    assert outcome(lambda c, p: c.unlink(p), Client(there), path) == right
    assert snapshot(native.root) == snapshot(tmp_path / "export")


def test_no_nul() -> None:
    with MemoryDisk() as disk, InProcess(disk) as there:
        with pytest.raises(Misuse):
            there.run(there.kernel.mkdir("a\0b"))


def test_a_walk_holds_what_it_has_met() -> None:
    """A directory that somebody else removes meanwhile is still the same node."""
    with MemoryDisk() as disk, InProcess(disk) as there:
        disk.do_mkdir("a")
        disk.do_mkdir("a/b")
        with Walk(there.kernel) as walk:
            there.run(walk.to(b"a/b"))
            assert len(there.kernel.inodes) == 3
        assert len(there.kernel.inodes) == 1
        assert there.known == 1
