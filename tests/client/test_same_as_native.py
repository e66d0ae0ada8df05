"""What the client raises itself, beside what the kernel raises: kinds, names, order, cookies.

The same calls are made in a plain directory, watched by inotify(7), and on an export in
memory, watched by the client's core in local mode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farwatch.linux.inotify import Inotify as NativeInotify
from tests.client.inprocess import ALL, InProcess, paired, said, unpack_inotify
from tests.client.two import Calls, Client, Native, put
from tests.session.memory import MemoryDisk

Case = Callable[[Calls], object]
CASES: dict[str, tuple[Case, list[str], Case, int]] = {}
EXCL_UNLINK = 0x04000000
RW, CREAT = os.O_RDWR, os.O_CREAT


def case(name: str, before: Case, watched: str, act: Case, mask: int = ALL) -> None:
    CASES[name] = (before, watched.split(), act, mask)


def nothing(calls: Calls) -> None:
    pass


def a(calls: Calls) -> object:
    return put(calls, "a")


def a_and_b(calls: Calls) -> object:
    put(calls, "a")
    return put(calls, "b")


def two_links(calls: Calls) -> object:
    put(calls, "a")
    return calls.link("a", "b")


def directories(calls: Calls) -> object:
    calls.mkdir("a")
    return calls.mkdir("b")


def opened(calls: Calls, path: str, flags: int, *then: tuple[str, object]) -> object:
    file = calls.open(path, flags)
    for name, argument in then:
        if name == "calls":
            assert callable(argument)
            argument(calls)
        else:
            getattr(file, name)(*(argument if isinstance(argument, tuple) else (argument,)))
    return file.close()


def fails(call: Callable[[str], object], path: str) -> object:
    with pytest.raises(OSError, match="not empty"):
        call(path)
    return None


case("create", nothing, "/", lambda c: opened(c, "a", os.O_WRONLY | CREAT))
case("create and write", nothing, "/", lambda c: put(c, "a"))
case("open creating what is there", a, "/ a", lambda c: opened(c, "a", RW | CREAT))
case("open truncating", a, "/ a", lambda c: opened(c, "a", RW | os.O_TRUNC))
case("create truncating", nothing, "/", lambda c: opened(c, "a", RW | CREAT | os.O_TRUNC))
case("read", a, "/ a", lambda c: opened(c, "a", os.O_RDONLY, ("read", 10)))
case("read nothing", a, "/ a", lambda c: opened(c, "a", os.O_RDONLY, ("pread", (10, 50))))
case("write nothing", a, "/ a", lambda c: opened(c, "a", RW, ("write", b"")))
case("write at", a, "/ a", lambda c: opened(c, "a", RW, ("pwrite", (b"zz", 5))))
case("append", a, "/ a", lambda c: opened(c, "a", os.O_WRONLY | os.O_APPEND, ("write", b"b")))
case("ftruncate", a, "/ a", lambda c: opened(c, "a", RW, ("truncate", 0)))
case("fchmod", a, "/ a", lambda c: opened(c, "a", RW, ("chmod", 0o600)))
case("futimens", a, "/ a", lambda c: opened(c, "a", RW, ("utime", (1, 1))))
case("fallocate", a, "/ a", lambda c: opened(c, "a", RW, ("allocate", 100)))
case("mkdir", nothing, "/", lambda c: c.mkdir("a"))
case("mknod", nothing, "/", lambda c: c.mknod("a"))
case("fifo", nothing, "/", lambda c: c.mknod("a", 0o010644))
case("symlink", nothing, "/", lambda c: c.symlink("x", "a"))
case("link", a, "/ a", lambda c: c.link("a", "b"))
case("link to another directory", lambda c: (a(c), c.mkdir("d"))[0], "/ a d",
     lambda c: c.link("a", "d/b"))  # fmt: skip
case("unlink", a, "/ a", lambda c: c.unlink("a"))
case("unlink one of two", lambda c: (a(c), c.link("a", "b"))[0], "/ a", lambda c: c.unlink("b"))
case("unlink both", lambda c: (a(c), c.link("a", "b"))[0], "/ a",
     lambda c: (c.unlink("b"), c.unlink("a"))[0])  # fmt: skip
case("unlink a symlink", lambda c: (a(c), c.symlink("a", "l"))[0], "/ a", lambda c: c.unlink("l"))
case("rmdir", directories, "/ a", lambda c: c.rmdir("a"))
case("rmdir fails", lambda c: (c.mkdir("a"), put(c, "a/f"))[0], "/ a",
     lambda c: fails(c.rmdir, "a"))  # fmt: skip
case("rename", a, "/ a", lambda c: c.rename("a", "b"))
case("rename over", a_and_b, "/ a b", lambda c: c.rename("a", "b"))
case("rename over one of two", lambda c: (a_and_b(c), c.link("b", "c"))[0], "/ a b",
     lambda c: c.rename("a", "b"))  # fmt: skip
case("rename over itself", lambda c: (a(c), c.link("a", "b"))[0], "/ a",
     lambda c: c.rename("a", "b"))  # fmt: skip
case("rename across", lambda c: (directories(c), put(c, "a/f"))[0], "/ a b a/f",
     lambda c: c.rename("a/f", "b/g"))  # fmt: skip
case("rename a directory", directories, "/ a", lambda c: c.rename("a", "c"))
case("rename a directory into another", directories, "/ a b", lambda c: c.rename("a", "b/c"))
case("rename a directory over another", directories, "/ a b", lambda c: c.rename("a", "b"))
case("exchange", a_and_b, "/ a b", lambda c: c.rename("a", "b", 2))
case("exchange across", lambda c: (directories(c), put(c, "a/f"), put(c, "b/g"))[0],
     "/ a b a/f b/g", lambda c: c.rename("a/f", "b/g", 2))  # fmt: skip
case("rename there and back", a, "/ a", lambda c: (c.rename("a", "b"), c.rename("b", "a"))[0])
case("rename, not replacing", a, "/ a", lambda c: c.rename("a", "b", 1))
case("chmod", a, "/ a", lambda c: c.chmod("a", 0o600))
case("chmod of a directory", directories, "/ a", lambda c: c.chmod("a", 0o700))
case("chmod of the root", nothing, "/", lambda c: c.chmod("/", 0o700))
case("chmod through a symlink", lambda c: (a(c), c.symlink("a", "l"))[0], "/ a",
     lambda c: c.chmod("l", 0o600))  # fmt: skip
case("chown to nobody new", a, "/ a", lambda c: c.chown("a", None, None))
case("both times", a, "/ a", lambda c: c.utime("a", 1, 2))
case("atime", a, "/ a", lambda c: c.utime("a", 1, None))
case("mtime", a, "/ a", lambda c: c.utime("a", None, 1))
case("no time", a, "/ a", lambda c: c.utime("a", None, None))
case("truncate", a, "/ a", lambda c: c.truncate("a", 0))
case("truncate to the same size", a, "/ a", lambda c: c.truncate("a", 1))
case("set an xattr", a, "/ a", lambda c: c.setxattr("a", "user.x", b"1"))
case("remove an xattr", lambda c: (a(c), c.setxattr("a", "user.x", b"1"))[0], "/ a",
     lambda c: c.removexattr("a", "user.x"))  # fmt: skip
case("list", lambda c: (c.mkdir("a"), put(c, "a/f"))[0], "/ a",
     lambda c: (c.listdir("a"), None)[1])  # fmt: skip
case("list the root", a, "/", lambda c: (c.listdir("/"), None)[1])
case("unlink while open", a, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: c.unlink("a")), ("write", b"x")))  # fmt: skip
case("unlink while open twice", a, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: opened(c, "a", RW, ("calls", lambda c: c.unlink("a")))),
    ("write", b"x")))  # fmt: skip
case("unlink what is open, then its other link", two_links, "/ a", lambda c: opened(
    c, "b", RW, ("calls", lambda c: (c.unlink("b"), c.unlink("a"))[0]),
    ("write", b"x")))  # fmt: skip
case("unlink a link, then what is open by the other", two_links, "/ a", lambda c: opened(
    c, "b", RW, ("calls", lambda c: (c.unlink("a"), c.unlink("b"))[0]),
    ("write", b"x")))  # fmt: skip
case("unlink two links that are both open", two_links, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: opened(
        c, "b", RW, ("calls", lambda c: (c.unlink("a"), c.unlink("b"))[0]), ("write", b"x"))),
    ("write", b"x")))  # fmt: skip
case("rename over a link of what is open by another", lambda c: (a_and_b(c), c.link("b", "c"))[0],
     "/ a b", lambda c: opened(c, "c", RW, ("calls", lambda c: (
         c.unlink("c"), c.rename("a", "b"))[0]), ("write", b"x")))  # fmt: skip
case("rename while open", a, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: c.rename("a", "b")), ("write", b"x"),
    ("chmod", 0o600)))  # fmt: skip
case("rename across while open", lambda c: (directories(c), put(c, "a/f"))[0], "a b a/f",
     lambda c: opened(
         c, "a/f", RW, ("calls", lambda c: c.rename("a/f", "b/g")), ("write", b"x")))  # fmt: skip
case("rename over what is open", a_and_b, "/ a b", lambda c: opened(
    c, "b", RW, ("calls", lambda c: c.rename("a", "b")), ("write", b"x")))  # fmt: skip
case("exchange while open", a_and_b, "/ a b", lambda c: opened(
    c, "b", RW, ("calls", lambda c: c.rename("a", "b", 2)), ("write", b"x")))  # fmt: skip
case("name used again while open", a, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: (c.unlink("a"), put(c, "a"))[0]), ("write", b"x")))  # fmt: skip
case("unlinked names do not count", a, "/ a", lambda c: opened(
    c, "a", RW, ("calls", lambda c: c.unlink("a")), ("write", b"x"), ("read", 1),
    ("truncate", 0), ("chmod", 0o600)), ALL | EXCL_UNLINK)  # fmt: skip
case("one link's name, the other's file", lambda c: (a(c), c.link("a", "b"))[0], "/ a",
     lambda c: opened(c, "b", RW, ("write", b"x")))  # fmt: skip
case("one shot", a, "/ a", lambda c: (c.chmod("a", 0o600), c.chmod("a", 0o644))[0],
     ALL | 0x80000000)  # fmt: skip
case("only what was asked for", a, "/ a", lambda c: (put(c, "a"), c.unlink("a"))[0], 0x2 | 0x200)
case("watched through a symlink", lambda c: (c.mkdir("d"), c.symlink("d", "l"))[0], "l",
     lambda c: put(c, "d/f"))  # fmt: skip
case("watched symlink itself", lambda c: (a(c), c.symlink("a", "l"))[0], "l",
     lambda c: (put(c, "a"), c.chown("l", None, 0, follow=False), c.unlink("l"))[0],
     ALL | 0x02000000)  # fmt: skip
case("a whole tree", nothing, "/", lambda c: (
    c.mkdir("d"), put(c, "d/f"), c.rename("d", "e"), c.unlink("e/f"), c.rmdir("e"))[0])  # fmt: skip


def native(root: Path, name: str) -> list[str]:
    before, watched, act, mask = CASES[name]
    calls = Native(root)
    before(calls)
    with NativeInotify() as inotify:
        names = {inotify.add(os.fsencode(root / path.lstrip("/")), mask): path for path in watched}
        act(calls)
        os.set_blocking(inotify.fileno(), False)
        try:
            data = os.read(inotify.fileno(), 1 << 16)
        except BlockingIOError:
            data = b""
    return told(names, unpack_inotify(data))


def told(names: dict[int, str], events: list[tuple[int, int, int, bytes]]) -> list[str]:
    return paired(
        [
            (cookie, f"{names[wd]}: {said(mask)} {name.decode()}".rstrip())
            for wd, mask, cookie, name in events
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_local_events(name: str, tmp_path: Path) -> None:
    right = native(tmp_path, name)
    before, watched, act, mask = CASES[name]
    with MemoryDisk() as disk, InProcess(disk) as there:
        calls = Client(there)
        before(calls)
        group = there.kernel.core.group()
        names = {there.run(there.kernel.add_watch(group, path, mask)): path for path in watched}
        act(calls)
        assert told(names, [event[:4] for event in group.read()]) == right
        there.run(there.kernel.close_group(group))
        assert (there.known, len(there.kernel.inodes)) == (1, 1), "every node is forgotten"
        assert there.kernel.watched == 0
