"""Replays of an ordinary user's agent, known by its thread: never a real operation either.

And what is not the agent's is never taken for a replay, whatever thread id it has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from farwatch.events import Change, Kind
from farwatch.session import marked
from farwatch.session.agents import KnownThreads
from farwatch.session.matching import InOrder
from tests.session import kernel as k
from tests.session.kernel import ROOT, Batch, Refused, setattr_body
from tests.session.memory import MemoryDisk
from tests.session.ordinary import OrdinaryAgent, OrdinaryKernel, Process, hello_if_none
from tests.session.scenes import (
    EXCHANGE,
    SCENES,
    Exact,
    Scene,
    Untouched,
    batch_of,
    exchanged_and_seen,
    refused,
)

NO_UID = 0xFFFFFFFF
MODIFY = 1 << 5 | 1 << 8 | 1 << 10
"""FATTR_MTIME, FATTR_MTIME_NOW, FATTR_CTIME (fuse.h)."""
MKNOD, RENAME, LOOK = 1, 7, 14
"""abi/control.py"""


@pytest.fixture
def kernel(disk: MemoryDisk) -> Iterator[OrdinaryKernel]:
    made = OrdinaryKernel(disk)
    made.init()
    yield made
    made.session.close()
    assert all(process.closed for process in made.processes.held)


@pytest.fixture
def agent(kernel: OrdinaryKernel) -> OrdinaryAgent:
    return OrdinaryAgent(kernel).register()


# HELLO ----------------------------------------------------------------------------------


def test_hello_says_that_there_are_no_marks(kernel: OrdinaryKernel) -> None:
    assert OrdinaryAgent(kernel).hello()[1] == NO_UID


@pytest.mark.parametrize("uid", [1, 999, 1001, 65534, 0xFFFFFFFF])
def test_only_the_owner_may_say_hello(kernel: OrdinaryKernel, uid: int) -> None:
    agent = OrdinaryAgent(kernel)
    with pytest.raises(Refused, match="EPERM"):
        agent.hello(uid=uid)
    assert not kernel.session.channel.is_agent(agent.pid)
    assert kernel.processes.held == []


def test_only_the_first_thread_of_a_process_may(kernel: OrdinaryKernel) -> None:
    kernel.processes.no_first.add(900)
    with pytest.raises(Refused, match="EPERM"):
        OrdinaryAgent(kernel).hello()


def test_a_second_thread_is_refused(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    """Steps are done in order: by one."""
    with pytest.raises(Refused, match="EPERM"):
        agent.hello(pid=901)
    agent.hello()
    assert kernel.session.channel.is_agent(900)


def test_who_may_not_replace_another_is_no_agent(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    other = OrdinaryAgent(kernel, pid=950)
    with pytest.raises(Refused, match="EBUSY"):
        hello_if_none(other)
    kernel.mkdir("d", pid=950)
    assert kernel.disk.place("d")


# Steps ----------------------------------------------------------------------------------


def test_when_its_descriptor_is_closed_it_is_refused(scene: Scene) -> None:
    """Its process lives, and may be in the middle of a batch."""
    scene.kernel.releasedir(ROOT, scene.agent.fh)
    refused(scene, scene.exact)


def test_when_another_agent_has_taken_over_it_is_refused(scene: Scene) -> None:
    other = OrdinaryAgent(scene.kernel, pid=950).register()
    refused(scene, scene.exact)
    batch_of(other)
    refused(scene, scene.exact)


def test_when_the_kernel_begins_anew_it_is_refused(scene: Scene) -> None:
    scene.kernel.init()
    scene.kernel.disk.journal.clear()
    refused(scene, scene.exact)


def test_when_it_has_ended_its_thread_id_is_anybodys(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    """Somebody who removes just what the agent was to remove really removes it."""
    disk = kernel.disk
    inode = disk.do_file("x")
    kernel.lookup("x")
    place = disk.place("x")
    disk.do_remove("x")
    disk.do_close(inode)
    kernel.deliver(Change(Kind.DELETE, place, inode.key), Change(Kind.DEATH, None, inode.key))
    disk.do_file("x", b"new")
    batch_of(agent)
    kernel.processes.end(agent.pid)
    kernel.unlink("x", pid=agent.pid)
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup("x", pid=agent.pid)


def test_a_cancelled_step_is_refused_and_one_like_it_is_not(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    disk = kernel.disk
    inode = disk.do_file("x")
    node = kernel.lookup("x").node
    kernel.deliver(Change(Kind.MODIFY, disk.place("x"), inode.key))
    batch_of(agent)
    touch = Exact(k.SETATTR, node, setattr_body(MODIFY, mtime=1 << 30))
    kernel.rename("x", "y")
    disk.journal.clear()
    for _ in range(2):
        with pytest.raises(Refused, match=r"ECANCELED|EPERM"):
            kernel.ask(*touch, pid=agent.pid)
    assert disk.journal == []


def test_steps_are_found_in_their_order(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    """Two removals and a making of one name, each answered as it then is."""
    disk = kernel.disk
    first = disk.do_file("x")
    old = kernel.lookup("x").node
    place = disk.place("x")
    disk.do_remove("x")
    disk.do_close(first)
    second = disk.do_file("x")
    kernel.deliver(
        Change(Kind.DELETE, place, first.key),
        Change(Kind.DEATH, None, first.key),
        Change(Kind.CREATE, place, second.key),
        Change(Kind.MODIFY, place, second.key),
        Change(Kind.ATTRIB, place, second.key),
    )
    batch_of(agent)
    disk.journal.clear()
    with Untouched(disk):
        assert kernel.lookup("x", pid=agent.pid).node == old
        kernel.unlink("x", pid=agent.pid)
        with pytest.raises(Refused, match="ENOENT"):
            kernel.lookup("x", pid=agent.pid)
        new = kernel.mknod("x", pid=agent.pid).node
        assert new != old
        assert kernel.lookup("x", pid=agent.pid).node == new
        kernel.ask(k.SETATTR, new, setattr_body(MODIFY, mtime=1 << 30), pid=agent.pid)
        kernel.ask(k.SETATTR, new, setattr_body(MODIFY, mtime=1 << 30), pid=agent.pid)
        with pytest.raises(Refused, match="EPERM"):
            kernel.ask(k.SETATTR, new, setattr_body(MODIFY, mtime=1 << 30), pid=agent.pid)


def test_the_one_after_a_step_that_was_never_asked_for(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    """The VFS has refused the first of them itself."""
    disk = kernel.disk
    first, second = disk.do_file("x"), disk.do_file("y")
    kernel.lookup("x")
    node = kernel.lookup("y").node
    kernel.deliver(
        Change(Kind.MODIFY, disk.place("x"), first.key),
        Change(Kind.MODIFY, disk.place("y"), second.key),
    )
    batch: Batch = batch_of(agent)
    assert len(batch.steps) == 2
    disk.journal.clear()
    with Untouched(disk):
        kernel.ask(k.SETATTR, node, setattr_body(MODIFY, mtime=1 << 30), pid=agent.pid)


# PLACE ----------------------------------------------------------------------------------


def test_the_place_of_a_directory(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    a = kernel.mkdir("a").node
    b = kernel.mkdir("b", directory=a).node
    assert agent.place(ROOT) == (ROOT, b".")
    assert agent.place(a) == (ROOT, b"a")
    assert agent.place(b) == (ROOT, b"a/b")
    with pytest.raises(Refused, match="ESTALE"):
        agent.place(1 << 40)


def test_a_long_place_is_told_in_parts(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    node, ids = ROOT, []
    for _ in range(100):
        node = kernel.mkdir(b"\xff" * 255, directory=node).node
        ids.append(node)
    above, path = agent.place(node)
    names = path.split(b"/")
    assert len(path) < 4096
    assert ids[99 - len(names)] == above
    assert set(names) == {b"\xff" * 255}


def test_what_is_above_need_not_be_known(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    """Where it is is asked of the disk, and nothing is known by that which nobody would forget."""
    node = ROOT
    for name in ("a", "b", "c"):
        node = kernel.mkdir(name, directory=node).node
    nodes = kernel.session.view.nodes
    for path in ("a", "a/b"):
        above = nodes.by_key[kernel.disk.at(path).key]
        kernel.forget(above.id, above.lookups)
    known = set(nodes.by_id)
    assert agent.place(node) == (ROOT, b"a/b/c")
    assert set(nodes.by_id) == known


def test_only_the_agent_is_told_a_place(kernel: OrdinaryKernel, agent: OrdinaryAgent) -> None:
    with pytest.raises(Refused, match="EPERM"):
        agent.place(ROOT, pid=100)
    with pytest.raises(Refused, match="EPERM"):
        OrdinaryAgent(kernel, pid=950).place(ROOT)


def test_a_directory_is_where_it_was_until_it_is_moved(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    """What moves it was planned together with what is done in it before."""
    disk = kernel.disk
    directory = disk.do_mkdir("a")
    inode = disk.do_file("a/x")
    node = kernel.lookup("a").node
    kernel.lookup("x", node)
    x = disk.place("a/x")
    old = disk.place("a")
    disk.do_remove("a/x")
    disk.do_close(inode)
    disk.do_rename("a", "b")
    other = disk.do_mkdir("a")
    kernel.deliver(
        Change(Kind.DELETE, x, inode.key),
        Change(Kind.DEATH, None, inode.key),
        Change(Kind.RENAME, old, directory.key, True, disk.place("b")),
        Change(Kind.CREATE, old, other.key, True),
    )
    batch_of(agent)
    assert agent.place(node) == (ROOT, b"a")
    # On the way there the kernel may ask for it: it is told what it has, not what is there.
    assert kernel.lookup("a", pid=agent.pid).node == node
    kernel.unlink("x", node, pid=agent.pid)
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup("b", pid=agent.pid)
    body = struct.pack("<QII", ROOT, 0, 0) + b"a\0b\0"
    kernel.ask(k.RENAME2, ROOT, body, pid=agent.pid)
    assert agent.place(node) == (ROOT, b"b")


def test_what_was_looked_at_before_a_move_is_not_where_it_was_after_it(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    """A step that looks is never known to be done, but it is when the next one is."""
    a, b = exchanged_and_seen(kernel)
    batch = batch_of(agent)
    assert [step.op for step in batch.steps][-2:] == [RENAME, MKNOD]
    assert LOOK in [step.op for step in batch.steps]
    assert kernel.lookup("a", pid=agent.pid).node == a
    assert kernel.lookup("b", pid=agent.pid).node == b
    body = struct.pack("<QII", ROOT, EXCHANGE, 0) + b"a\0b\0"
    kernel.ask(k.RENAME2, ROOT, body, pid=agent.pid)
    assert agent.place(a) == (ROOT, b"b")
    assert kernel.lookup("b", pid=agent.pid).node == a
    kernel.mknod("x", directory=a, pid=agent.pid)


def test_a_directory_is_where_it_was_until_it_is_removed(
    kernel: OrdinaryKernel, agent: OrdinaryAgent
) -> None:
    disk = kernel.disk
    directory = disk.do_mkdir("a")
    inode = disk.do_file("a/x")
    node = kernel.lookup("a").node
    kernel.lookup("x", node)
    x, a = disk.place("a/x"), disk.place("a")
    disk.do_remove("a/x")
    disk.do_remove("a")
    disk.do_close(inode)
    kernel.deliver(
        Change(Kind.DELETE, x, inode.key),
        Change(Kind.DEATH, None, inode.key),
        Change(Kind.DELETE, a, directory.key, True),
    )
    batch_of(agent)
    assert agent.place(node) == (ROOT, b"a")
    assert kernel.lookup("a", pid=agent.pid).node == node
    kernel.unlink("x", node, pid=agent.pid)
    kernel.rmdir("a", pid=agent.pid)
    above, path = agent.place(node)
    assert above == 2
    assert path == b"n%d" % node


# Without the rules --------------------------------------------------------------------------


def test_who_is_not_known_would_really_remove(
    kernel: OrdinaryKernel, agent: OrdinaryAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = SCENES["UNLINK"](kernel, agent)
    kernel.releasedir(ROOT, agent.fh)
    monkeypatch.setattr(KnownThreads, "knows", lambda self, thread: False)
    with pytest.raises(AssertionError), Untouched(kernel.disk):
        scene.send()


def test_by_the_thread_id_alone_others_would_be_refused(
    kernel: OrdinaryKernel, agent: OrdinaryAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.processes.end(agent.pid)
    monkeypatch.setattr(Process, "is_alive", lambda self: True)
    with pytest.raises(Refused, match="EPERM"):
        kernel.mkdir("d", pid=agent.pid)


def test_a_walk_that_is_answered_by_the_disk_would_lead_astray(
    kernel: OrdinaryKernel, agent: OrdinaryAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands where the directory of an earlier step stood would take its place."""
    monkeypatch.setattr(marked, "held", lambda view, directory, name: (False, None))
    monkeypatch.setattr(InOrder, "is_walk", lambda self, request, name: True)
    disk = kernel.disk
    directory = disk.do_mkdir("a")
    node = kernel.lookup("a").node
    old = disk.place("a")
    disk.do_rename("a", "b")
    disk.do_mkdir("a")
    kernel.deliver(Change(Kind.RENAME, old, directory.key, True, disk.place("b")))
    batch_of(agent)
    assert kernel.lookup("a", pid=agent.pid).node != node
