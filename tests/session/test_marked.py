"""A replay is never a real operation.

Requests from the reserved range of user ids are acknowledged if they are exactly what an
armed step is for; whatever else they are, the disk does not change.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farwatch.events import Change, Kind
from tests.session import kernel as k
from tests.session.kernel import FIRST_UID, ROOT, Agent, Kernel, Refused, setattr_body
from tests.session.memory import MemoryDisk
from tests.session.scenes import (
    CHANGING,
    UNLINK,
    WRITE,
    Exact,
    Scene,
    Untouched,
    batch_of,
    linked,
    refused,
    removed,
    renamed,
    through_a_file,
    touched,
)
from tests.session.test_hostile import BODIES


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
