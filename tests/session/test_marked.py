"""A replay is never a real operation.

Requests from the reserved range of user ids are acknowledged if they are exactly what an
armed step is for; whatever else they are, the disk does not change.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farwatch.events import Change, Kind
from tests.session import kernel as k
from tests.session.kernel import FIRST_UID, ROOT, Agent, Batch, Kernel, Refused, setattr_body
from tests.session.memory import MemoryDisk
from tests.session.test_hostile import BODIES

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


def _name(name: str) -> bytes:
    return name.encode() + b"\0"


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


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, kernel: Kernel, agent: Agent) -> Scene:
    made = SCENES[request.param](kernel, agent)
    made.kernel.disk.journal.clear()
    return made


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


def test_the_exact_request_is_acknowledged_and_touches_nothing(scene: Scene) -> None:
    with Untouched(scene.kernel.disk):
        scene.send()


def test_any_other_opcode_is_refused(scene: Scene) -> None:
    for opcode in CHANGING:
        same = {scene.exact.opcode, k.RENAME2 if scene.exact.opcode == k.RENAME else 0}
        if opcode not in same:
            refused(scene, scene.exact._replace(opcode=opcode))
            refused(scene, Exact(opcode, scene.exact.node, BODIES[opcode]))
    scene.send()


def test_another_node_is_refused(scene: Scene) -> None:
    other = scene.kernel.mkdir("elsewhere").node
    scene.kernel.disk.journal.clear()
    for node in (other, 2, 0, scene.exact.node + 1, 1 << 40):
        if node != scene.exact.node and scene.exact.opcode not in (k.WRITE, k.READ):
            refused(scene, scene.exact._replace(node=node))
    scene.send()


def test_another_name_is_refused(scene: Scene) -> None:
    if not scene.name:
        return
    for name in (b"z", b"", b"..", b".", b"x/y", scene.name + scene.name, b"a" * 300):
        body = scene.exact.body.replace(scene.name + b"\0", name + b"\0")
        assert body != scene.exact.body
        refused(scene, scene.exact._replace(body=body))
    scene.send()


def test_a_cut_off_body_is_refused(scene: Scene) -> None:
    if scene.exact.opcode in (k.OPEN, k.WRITE, k.READ, k.SETATTR):
        return  # nothing of these is needed but their beginning
    for length in range(len(scene.exact.body)):
        refused(scene, scene.exact._replace(body=scene.exact.body[:length]))
    scene.send()


def test_another_sequence_is_refused(scene: Scene) -> None:
    armed = range(scene.batch.sequence, scene.batch.sequence + len(scene.batch.steps))
    for sequence in (0, 1, 2, 7, 0xFFFF, scene.uid - FIRST_UID + 1, scene.uid - FIRST_UID - 1):
        if sequence % 0x10000 not in armed:
            refused(scene, scene.exact, FIRST_UID + sequence % 0x10000)
    scene.send()


def test_another_thread_is_refused(scene: Scene) -> None:
    for pid in (0, 1, 100, 899, 902, 0xFFFFFFFF):
        refused(scene, scene.exact, pid=pid)
    scene.send()


def test_a_second_time_is_refused(scene: Scene) -> None:
    scene.send()
    if scene.exact.opcode != k.OPEN:  # an open may be tried again
        refused(scene, scene.exact)


def test_after_the_batch_it_is_refused(scene: Scene) -> None:
    scene.agent.wait(scene.batch.number)
    refused(scene, scene.exact)


def test_an_agent_that_is_gone_is_refused(scene: Scene) -> None:
    scene.kernel.releasedir(ROOT, scene.agent.fh)
    refused(scene, scene.exact)


def test_a_server_that_was_started_anew_refuses(scene: Scene) -> None:
    disk = scene.kernel.disk
    second = Kernel(disk)
    second.init()
    stranger = scene._replace(kernel=second)
    with Untouched(disk), pytest.raises(Refused):
        stranger.send()
    second.session.close()


def test_a_cancelled_one_is_refused(scene: Scene) -> None:
    if scene.cancel is None:
        return
    scene.cancel()
    refused(scene, scene.exact)


def test_flags_of_a_rename_are_part_of_it(kernel: Kernel, agent: Agent) -> None:
    scene = renamed(kernel, agent, "over")
    for flags in (1, 2, 4, 0xFFFFFFFF):
        body = struct.pack("<QII", ROOT, flags, 0) + b"x\0y\0"
        refused(scene, scene.exact._replace(body=body))
    refused(scene, Exact(k.RENAME2, ROOT, struct.pack("<QII", 2, 0, 0) + b"x\0y\0"))
    refused(scene, Exact(k.RENAME2, ROOT, struct.pack("<QII", ROOT, 0, 0) + b"y\0x\0"))
    # A kernel older than 3.15 has no RENAME2.
    scene.send(Exact(k.RENAME, ROOT, struct.pack("<Q", ROOT) + b"x\0y\0"))


def test_a_touch_sets_times_and_nothing_else(kernel: Kernel, agent: Agent) -> None:
    scene = touched(kernel, agent)
    for bit in (0, 1, 2, 3, 9, 11):
        body = setattr_body(1 << 5 | 1 << bit, size=0, mode=0, uid=1, gid=1)
        refused(scene, scene.exact._replace(body=body))
    scene.send()


def test_a_link_to_another_node_is_refused(kernel: Kernel, agent: Agent) -> None:
    scene = linked(kernel, agent)
    other = kernel.mknod("other").node
    kernel.disk.journal.clear()
    refused(scene, scene.exact._replace(body=struct.pack("<Q", other) + b"x\0"))
    scene.send()


def test_writes_go_to_files_of_replays_only(kernel: Kernel, agent: Agent) -> None:
    scene = through_a_file(kernel, agent, WRITE)
    node = kernel.lookup("x").node
    real = kernel.open(node, 2).fh
    kernel.disk.journal.clear()
    body = struct.pack("<QQIIQII", real, 0, 1, 0, 0, 0, 0) + b"\0"
    refused(scene, scene.exact._replace(body=body))
    # And nobody writes to a file through a replay's handle.
    with Untouched(kernel.disk), pytest.raises(Refused, match="EBADF"):
        kernel.ask(*scene.exact)
    scene.send()
    kernel.release(node, real)


def test_an_unmarked_request_is_never_a_replay(kernel: Kernel, agent: Agent) -> None:
    scene = removed(kernel, agent, UNLINK)
    kernel.lookup("x")
    kernel.ask(*scene.exact, pid=900)
    assert b"x" not in kernel.disk.root.children


def test_unlink_and_rename_ask_before_they_act(kernel: Kernel, agent: Agent) -> None:
    """What the client has seen there since may be another node."""
    disk = kernel.disk
    inode = disk.do_file("x")
    kernel.deliver(Change(Kind.DELETE, disk.place("x"), inode.key))  # never looked up: a ghost
    disk.do_close(disk.do_remove("x"))
    batch = batch_of(agent)
    mark = {"uid": batch.mark(UNLINK), "pid": 900}
    with pytest.raises(Refused, match="ESTALE"):
        kernel.unlink("x", **mark)
    ghost = kernel.lookup("x", **mark)
    assert (ghost.entry_valid, ghost.attributes.nlink) == (0, 1)
    kernel.unlink("x", **mark)


# Any request whatever -------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"x", b"n16", b"n17", k.HIDDEN, b".", b".."])
NODES = st.sampled_from([0, 1, 2, *range(16, 24)])
U32, U64 = st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1)
FLAGS = st.sampled_from([0, 1, 2, 4]) | U32
FHS = st.integers(0, 8)


@st.composite
def bodies(draw: st.DrawFn, opcode: int) -> bytes:
    """Mostly well made: the server must not refuse for the wrong reason."""
    name = draw(NAMES) + b"\0"
    other = draw(NAMES) + b"\0"
    match opcode:
        case k.LOOKUP | k.UNLINK | k.RMDIR | k.REMOVEXATTR:
            return name
        case k.SYMLINK:
            return name + other
        case k.MKNOD | k.CREATE | k.TMPFILE:
            return struct.pack("<IIII", draw(U32), draw(FLAGS), 0, 0) + name
        case k.MKDIR:
            return struct.pack("<II", draw(U32), 0) + name
        case k.RENAME:
            return struct.pack("<Q", draw(NODES)) + name + other
        case k.RENAME2:
            return struct.pack("<QII", draw(NODES), draw(FLAGS), 0) + name + other
        case k.LINK:
            return struct.pack("<Q", draw(NODES)) + name
        case k.SETATTR:
            return setattr_body(draw(st.integers(0, 0xFFF)), draw(FHS), size=draw(FLAGS))
        case k.WRITE:
            return struct.pack("<QQIIQII", draw(FHS), 0, 1, draw(FLAGS), 0, 0, 0) + b"!"
        case k.FALLOCATE:
            return struct.pack("<QQQII", draw(FHS), 0, 10, draw(FLAGS), 0)
        case k.COPY_FILE_RANGE:
            return struct.pack("<7Q", draw(FHS), 0, draw(NODES), draw(FHS), 0, 5, 0)
        case k.SETXATTR:
            return struct.pack("<II", 1, 0) + b"user.a\0v"
        case _:
            good = BODIES.get(opcode, b"")
            return draw(st.sampled_from([good, b""]) | st.binary(max_size=60))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Exact, int, int]:
    opcode = draw(st.sampled_from([*CHANGING, *CHANGING, *BODIES]) | st.integers(0, 60))
    if opcode in (k.DESTROY, k.INIT):
        opcode = k.UNLINK  # these end a session; they have no marks
    uid = FIRST_UID + draw(st.integers(0, 12) | st.integers(0, 0xFFFF))
    return (
        Exact(opcode, draw(NODES), draw(bodies(opcode))),
        uid,
        draw(st.sampled_from([900, 900, 900, 901, 0, 100])),
    )


def remote_history(kernel: Kernel) -> list[Change]:
    """Some of everything, so that steps of most kinds are armed."""
    disk = kernel.disk
    for name in "abcd":
        disk.do_file(name, name.encode())
        kernel.lookup(name)
    disk.do_mkdir("e")
    kernel.lookup("e")
    changes = []
    b, c, d = disk.place("b"), disk.place("c"), disk.place("d")
    changes.append(Change(Kind.MODIFY, disk.place("a"), disk.at("a").key))
    changes.append(Change(Kind.RENAME, b, disk.at("b").key, new_place=c))
    disk.do_rename("b", "c")
    changes.append(Change(Kind.CREATE, disk.place("x"), disk.do_file("x").key))
    changes.append(Change(Kind.DELETE, d, disk.at("d").key))
    disk.do_close(disk.do_remove("d"))
    disk.do_file("d", b"precious")
    changes.append(Change(Kind.CLOSE_WRITE, disk.place("a"), disk.at("a").key))
    changes.append(Change(Kind.DELETE, disk.place("e"), disk.at("e").key, True))
    disk.do_remove("e")
    disk.do_mkdir("e")
    disk.do_file("e/f")
    return changes


@settings(max_examples=300)
@given(st.lists(requests(), min_size=1, max_size=30))
def test_no_marked_request_ever_changes_the_disk(
    asked: list[tuple[Exact, int, int]],
) -> None:
    with MemoryDisk() as disk:
        kernel = Kernel(disk)
        kernel.init()
        agent = Agent(kernel).register()
        changes = remote_history(kernel)
        node = kernel.lookup("a").node
        kernel.open(node, 2)  # a file handle that would do harm
        kernel.deliver(*changes)
        batch = agent.wait()
        assert batch is not None
        assert len(batch.steps) >= len(changes)
        disk.journal.clear()
        with Untouched(disk):
            for (opcode, where, body), uid, pid in asked:
                try:
                    kernel.try_ask(opcode, where, body, uid=uid, pid=pid)
                except Refused:
                    pass
        kernel.session.close()
