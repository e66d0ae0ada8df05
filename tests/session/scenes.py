"""Steps that are armed, each with the one request that it is for.

And what is said of any other request: it is refused, and the disk is untouched.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from farwatch.events import Change, Kind
from tests.session import kernel as k
from tests.session.kernel import ROOT, Agent, Batch, Kernel, Refused, setattr_body
from tests.session.memory import MemoryDisk

(MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, TOUCH) = range(1, 9)
OPEN_CLOSE, OPEN, CLOSE, PIN, UNPIN, LOOK, WRITE, READ = range(9, 17)
EXCHANGE = 2
BY_PATH = 3 | 8
CHANGING = (
    k.SETATTR, k.SYMLINK, k.MKNOD, k.MKDIR, k.UNLINK, k.RMDIR, k.RENAME, k.LINK, k.WRITE,
    k.SETXATTR, k.REMOVEXATTR, k.CREATE, k.FALLOCATE, k.RENAME2, k.COPY_FILE_RANGE, k.TMPFILE,
    k.OPEN,
)  # fmt: skip


class Exact(NamedTuple):
    """The one request that a step is for."""

    opcode: int
    node: int
    body: bytes


class Scene(NamedTuple):
    """A step that is armed, and what it is for."""

    kernel: Kernel
    agent: Agent
    batch: Batch
    uid: int
    exact: Exact
    name: bytes
    cancel: Callable[[], object] | None = None

    def send(self, exact: Exact | None = None, uid: int | None = None, pid: int = 900) -> bytes:
        opcode, node, body = exact or self.exact
        return self.kernel.ask(opcode, node, body, uid=self.uid if uid is None else uid, pid=pid)


def batch_of(agent: Agent) -> Batch:
    batch = agent.wait()
    assert batch is not None
    return batch


def created(kernel: Kernel, agent: Agent, op: int) -> Scene:
    disk = kernel.disk
    inode = {
        MKNOD: lambda: disk.do_file("x"),
        MKDIR: lambda: disk.do_mkdir("x"),
        SYMLINK: lambda: disk.do_symlink("x", b"target"),
    }[op]()
    kernel.deliver(Change(Kind.CREATE, disk.place("x"), inode.key, inode.is_dir))
    batch = batch_of(agent)
    exact = {
        MKNOD: Exact(k.MKNOD, ROOT, struct.pack("<IIII", 0o100600, 0, 0, 0) + b"x\0"),
        MKDIR: Exact(k.MKDIR, ROOT, struct.pack("<II", 0o700, 0) + b"x\0"),
        SYMLINK: Exact(k.SYMLINK, ROOT, b"x\0.\0"),
    }[op]
    return Scene(kernel, agent, batch, batch.mark(op), exact, b"x", lambda: kernel.rename("x", "y"))


def removed(kernel: Kernel, agent: Agent, op: int) -> Scene:
    disk = kernel.disk
    inode = disk.do_mkdir("x") if op == RMDIR else disk.do_file("x")
    kernel.lookup("x")
    change = Change(Kind.DELETE, disk.place("x"), inode.key, inode.is_dir)
    disk.do_remove("x")
    if op == UNLINK:
        disk.do_close(inode)
    kernel.deliver(change, Change(Kind.DEATH, None, inode.key, inode.is_dir))
    # By now the name is used again: this is what an unarmed replay would destroy.
    if op == RMDIR:
        disk.do_mkdir("x")
    else:
        disk.do_file("x", b"precious")
    batch = batch_of(agent)
    exact = Exact(k.RMDIR if op == RMDIR else k.UNLINK, ROOT, b"x\0")
    return Scene(kernel, agent, batch, batch.mark(op), exact, b"x", None)


def renamed(kernel: Kernel, agent: Agent, how: str) -> Scene:
    disk = kernel.disk
    inode, other = disk.do_file("x"), None
    kernel.lookup("x")
    if how != "to nothing":
        other = disk.do_file("y")
        kernel.lookup("y")
    place = disk.place("x")
    flags = EXCHANGE if how == "exchange" else 0
    disk.do_rename("x", "y", flags)
    new_place = disk.place("y")
    if how == "exchange":
        assert other is not None
        change = Change(Kind.EXCHANGE, place, inode.key, new_place=new_place, other=other.key)
    else:
        disk.do_file("x", b"precious")
        change = Change(Kind.RENAME, place, inode.key, new_place=new_place)
    kernel.deliver(change)
    batch = batch_of(agent)
    exact = Exact(k.RENAME2, ROOT, struct.pack("<QII", ROOT, flags, 0) + b"x\0y\0")
    mark = batch.mark(RENAME)
    if how == "to nothing":
        # As the VFS does (rename looks both names up, revalidated).
        kernel.lookup("x", uid=mark, pid=900)
        with pytest.raises(Refused, match="ENOENT"):
            kernel.lookup("y", uid=mark, pid=900)
    elif how == "over":
        kernel.lookup("y", uid=mark, pid=900)
    return Scene(kernel, agent, batch, mark, exact, b"y", None)


def linked(kernel: Kernel, agent: Agent) -> Scene:
    disk = kernel.disk
    inode = disk.do_file("f")
    node = kernel.lookup("f").node
    disk.do_link("f", "x")
    kernel.deliver(Change(Kind.CREATE, disk.place("x"), inode.key, linked=True))
    batch = batch_of(agent)
    exact = Exact(k.LINK, ROOT, struct.pack("<Q", node) + b"x\0")
    return Scene(kernel, agent, batch, batch.mark(LINK), exact, b"x", lambda: kernel.unlink("x"))


def exchanged_and_seen(kernel: Kernel) -> tuple[int, int]:
    """Directories ``a`` and ``b`` are exchanged, and a file x is made in what is ``b`` now.

    The client looks at ``b`` before it is told, so the agent has to look at what it exchanges.
    Gives the nodes that were told as ``a`` and ``b`` before.
    """
    disk = kernel.disk
    first, second = disk.do_mkdir("a"), disk.do_mkdir("b")
    a, b = kernel.lookup("a").node, kernel.lookup("b").node
    disk.do_rename("a", "b", EXCHANGE)
    made = disk.do_file("b/x")
    assert kernel.lookup("b").node == a
    old, new = disk.place("a"), disk.place("b")
    kernel.deliver(
        Change(Kind.EXCHANGE, old, first.key, True, new, second.key),
        Change(Kind.CREATE, disk.place("b/x"), made.key),
    )
    return a, b


def touched(kernel: Kernel, agent: Agent) -> Scene:
    disk = kernel.disk
    inode = disk.do_file("x", b"precious")
    node = kernel.lookup("x").node
    kernel.deliver(Change(Kind.MODIFY, disk.place("x"), inode.key))
    batch = batch_of(agent)
    exact = Exact(k.SETATTR, node, setattr_body(1 << 5 | 1 << 8 | 1 << 10, mtime=1 << 30))
    return Scene(
        kernel, agent, batch, batch.mark(TOUCH), exact, b"", lambda: kernel.rename("x", "y")
    )


def opened(kernel: Kernel, agent: Agent) -> Scene:
    disk = kernel.disk
    inode = disk.do_file("x", b"precious")
    node = kernel.lookup("x").node
    kernel.deliver(Change(Kind.CLOSE_WRITE, disk.place("x"), inode.key))
    batch = batch_of(agent)
    exact = Exact(k.OPEN, node, struct.pack("<II", 0o1, 0))
    return Scene(
        kernel, agent, batch, batch.mark(OPEN_CLOSE), exact, b"", lambda: kernel.rename("x", "y")
    )


def through_a_file(kernel: Kernel, agent: Agent, op: int) -> Scene:
    disk = kernel.disk
    inode = disk.do_file("x", b"precious")
    node = kernel.lookup("x").node
    agent.watch([(ROOT, 0, 0xFFF)], BY_PATH)
    place = disk.place("x")
    kernel.session._planner._contents._access_mode = lambda thread, key: 2
    kernel.deliver(
        Change(Kind.OPEN, place, inode.key),
        Change(Kind.MODIFY if op == WRITE else Kind.ACCESS, place, inode.key),
    )
    batch = batch_of(agent)
    fh = kernel.open(node, 2, uid=batch.mark(OPEN), pid=900).fh
    body = struct.pack("<QQIIQII", fh, 0, 1, 0, 0, 0, 0)
    exact = Exact(k.WRITE, node, body + b"\0") if op == WRITE else Exact(k.READ, node, body)
    return Scene(kernel, agent, batch, batch.mark(op), exact, b"", None)


SCENES: dict[str, Callable[[Kernel, Agent], Scene]] = {
    "MKNOD": lambda kernel, agent: created(kernel, agent, MKNOD),
    "MKDIR": lambda kernel, agent: created(kernel, agent, MKDIR),
    "SYMLINK": lambda kernel, agent: created(kernel, agent, SYMLINK),
    "LINK": linked,
    "UNLINK": lambda kernel, agent: removed(kernel, agent, UNLINK),
    "RMDIR": lambda kernel, agent: removed(kernel, agent, RMDIR),
    "RENAME": lambda kernel, agent: renamed(kernel, agent, "to nothing"),
    "RENAME over": lambda kernel, agent: renamed(kernel, agent, "over"),
    "RENAME exchange": lambda kernel, agent: renamed(kernel, agent, "exchange"),
    "TOUCH": touched,
    "OPEN_CLOSE": opened,
    "WRITE": lambda kernel, agent: through_a_file(kernel, agent, WRITE),
    "READ": lambda kernel, agent: through_a_file(kernel, agent, READ),
}


class Untouched:
    """The disk is after the block as it was before."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._before = disk.snapshot()
        self._journal = list(disk.journal)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        assert self._disk.snapshot() == self._before
        assert self._disk.journal == self._journal


def refused(scene: Scene, exact: Exact, uid: int | None = None, pid: int = 900) -> None:
    """Not acknowledged; the disk is untouched; and the right one still is."""
    with Untouched(scene.kernel.disk), pytest.raises(Refused) as found:
        scene.send(exact, uid, pid)
    assert found.value.errno in (
        errno.EPERM, errno.ESTALE, errno.EINVAL, errno.ECANCELED, errno.ENOTTY, errno.ENOSYS,
        errno.EBADF,
    )  # fmt: skip
