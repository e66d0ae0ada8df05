"""How long a client may believe what it is told, where its kernel can be notified."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from farwatch.events import Change, Key, Kind
from farwatch.session import belief
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import CACHING, DAY, Cache
from tests.session.kernel import FIRST_UID, FLAGS2_6_18, ROOT, Agent, Kernel, in_session, settings
from tests.session.memory import MemoryDisk

LOOK, RMDIR, AGAIN = 14, 6, 1
"""abi/control.py"""
EXPIRE_ONLY_FLAG = 1 << (35 - 32)
INVAL_INODE, INVAL_ENTRY = 2, 3
"""enum fuse_notify_code of linux/fuse.h."""
ENOENT, EBUSY = 2, 16


class Believing:
    """A client kernel that is told by ``--cache coherent``, and an agent beside it."""

    def __init__(self, disk: MemoryDisk, flags2: int = FLAGS2_6_18) -> None:
        chosen = settings()._replace(caching=CACHING[Cache.COHERENT])
        self.disk = disk
        self.written: set[Key] = set()
        self.session = Session(in_session(disk), chosen, disk, lambda thread, key: None)
        self.session.can_invalidate = True
        self.session.is_written_elsewhere = self.written.__contains__
        self.kernel = Kernel(disk, self.session)
        self.kernel.init(flags2=flags2)

    def agent(self) -> Agent:
        return Agent(self.kernel).register()

    def absent(self, name: str) -> tuple[int, int]:
        """Node and seconds of the answer to a look-up of what is not there."""
        entry = self.kernel.lookup(name)
        return entry.node, entry.entry_valid

    def notified(self) -> list[tuple[object, ...]]:
        """What the kernel is to ask again: ("name", directory, name), ("node", id, offset)."""
        found: list[tuple[object, ...]] = []
        while replies := self.session.take_doubts():
            found += map(unpacked, replies)
        return found

    def outdated(self) -> set[int]:
        """Ids of the nodes that the kernel is to ask of again before it reads the last reply."""
        found = list(map(unpacked, self.session.take_outdated()))
        assert all((kind, offset) == ("node", -1) for kind, _, offset in found)
        return {int(str(node)) for _, node, _ in found}


def unpacked(reply: Reply) -> tuple[object, ...]:
    """What a notification says, see ``notified``."""
    data = b"".join(bytes(part) for part in reply)
    length, code, unique = struct.unpack_from("<IiQ", data)
    assert (length, unique) == (len(data), 0)
    if code == INVAL_ENTRY:
        parent, size, flags = struct.unpack_from("<QII", data, 16)
        name = data[32:]
        # Never without the flag: the kernel would unmount what is below the name.
        assert (flags, len(name), name[-1:]) == (1, size + 1, b"\0")
        return "name", parent, name[:-1]
    assert code == INVAL_INODE
    node, offset, size = struct.unpack("<Qqq", data[16:])
    assert size == 0
    return "node", node, offset


@pytest.fixture
def client(disk: MemoryDisk) -> Iterator[Believing]:
    made = Believing(disk)
    yield made
    made.session.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(belief, "time", made)
    return made


def seconds(kernel: Kernel, name: str) -> tuple[int, int]:
    entry = kernel.lookup(name)
    return entry.entry_valid, entry.attr_valid


def do_remove(disk: MemoryDisk, name: str) -> Change:
    place = disk.place(name)
    inode = disk.do_remove(name)
    return Change(Kind.DELETE, place, inode.key, inode.is_dir)


def do_file(disk: MemoryDisk, name: str) -> Change:
    place = disk.place(name)
    return Change(Kind.CREATE, place, disk.do_file(name).key)


# For how long -------------------------------------------------------------------------


def test_for_long_while_there_is_an_agent(client: Believing) -> None:
    client.disk.do_file("f")
    client.disk.do_mkdir("d")
    assert seconds(client.kernel, "f") == (1, 1)
    agent = client.agent()
    for name in "fd":
        assert seconds(client.kernel, name) == (DAY, DAY)
    client.kernel.releasedir(ROOT, agent.fh)
    for name in "fd":
        assert seconds(client.kernel, name) == (1, 1)


def test_a_link_count_that_may_be_too_high(client: Believing) -> None:
    """A link is gone on the disk, and perhaps its removal is still to be told; or it never is."""
    client.agent()
    client.disk.do_file("f")
    client.disk.do_link("f", "g")
    client.session.is_behind = lambda: True
    assert client.kernel.lookup("f").attributes.nlink == 2
    client.disk.do_remove("g")
    entry = client.kernel.lookup("f")
    assert (entry.attributes.nlink, entry.attr_valid) == (2, 0)
    client.session.is_behind = lambda: False
    entry = client.kernel.lookup("f")
    assert (entry.attributes.nlink, entry.attr_valid) == (1, DAY)


def test_names_that_are_not_there(client: Believing) -> None:
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("x")
    client.agent()
    assert client.absent("x") == (0, DAY)


@pytest.mark.parametrize("flags2", [FLAGS2_6_18 & ~EXPIRE_ONLY_FLAG, 0])
def test_a_kernel_that_cannot_let_names_expire(disk: MemoryDisk, flags2: int) -> None:
    client = Believing(disk, flags2)
    disk.do_file("f")
    client.agent()
    assert seconds(client.kernel, "f") == (1, 1)
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("x")
    client.session.close()


def test_a_name_that_is_pending_is_not_taken_for_absent(client: Believing) -> None:
    client.agent()
    client.disk.do_file("x")
    client.kernel.lookup("x")
    client.kernel.deliver(do_remove(client.disk, "x"))
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("x")


def test_a_name_whose_end_is_not_told_yet_is_not_taken_for_absent(client: Believing) -> None:
    client.agent()
    client.disk.do_file("x")
    client.kernel.lookup("x")
    client.disk.do_remove("x")
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("x")


def test_a_file_that_somebody_writes(client: Believing) -> None:
    client.agent()
    inode = client.disk.do_file("f")
    client.written.add(inode.key)
    assert seconds(client.kernel, "f") == (DAY, 1)
    client.written.clear()
    assert seconds(client.kernel, "f") == (DAY, DAY)


def test_a_file_that_the_client_writes(client: Believing) -> None:
    client.agent()
    client.disk.do_file("f")
    entry = client.kernel.lookup("f")
    opened = client.kernel.open(entry.node, 2)
    # What it was told before may be not so from now on.
    assert [found[:2] for found in client.notified()] == [("node", entry.node)]
    assert seconds(client.kernel, "f") == (DAY, 1)
    client.kernel.release(entry.node, opened.fh)
    assert seconds(client.kernel, "f") == (DAY, DAY)


def test_a_file_that_the_client_makes(client: Believing) -> None:
    client.agent()
    entry, _ = client.kernel.create("f")
    assert (entry.entry_valid, entry.attr_valid) == (DAY, 1)


def test_where_nothing_is_heard(client: Believing) -> None:
    client.agent()
    key = client.disk.do_file("f").key
    client.session.unheard.add(key[:8])
    assert seconds(client.kernel, "f") == (1, 1)
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("x")


# What is doubted ----------------------------------------------------------------------


def test_a_file_that_is_opened_and_is_another_than_was_told(client: Believing) -> None:
    client.agent()
    inode = client.disk.do_file("f")
    entry = client.kernel.lookup("f")
    client.kernel.open(entry.node)
    client.notified()
    client.kernel.lookup("f")
    inode.times[1] += 5
    client.kernel.open(entry.node)
    assert [found[:2] for found in client.notified()] == [("node", entry.node)]
    # Once: nothing was told since.
    client.kernel.open(entry.node)
    assert client.notified() == []


def test_what_the_agent_could_not_do(client: Believing) -> None:
    agent = client.agent()
    client.disk.do_file("x")
    node = client.kernel.lookup("x").node
    client.kernel.deliver(do_remove(client.disk, "x"))
    batch = agent.wait()
    assert batch is not None
    assert client.notified() == []
    agent.wait(batch.number, [(0, EBUSY)])
    assert set(client.notified()) >= {("name", ROOT, b"x"), ("node", node, -1)}


def test_a_gap(client: Believing) -> None:
    client.agent()
    client.disk.do_mkdir("d")
    client.disk.do_file("d/f")
    directory = client.kernel.lookup("d").node
    file = client.kernel.lookup("f", directory).node
    client.kernel.lookup("none", directory)
    with client.session.view.lock:
        client.session.view.distrust()
    assert set(client.notified()) == {
        ("name", ROOT, b"d"),
        ("name", directory, b"f"),
        ("name", directory, b"none"),
        ("node", ROOT, -1),
        ("node", directory, -1),
        ("node", file, -1),
    }
    assert client.notified() == []


# What a request changes ---------------------------------------------------------------


class Tree:
    """d/f, d/g and e/h, and who knows them: what is told once more is believed once more."""

    def __init__(self, client: Believing) -> None:
        disk, kernel = client.disk, client.kernel
        for directory in "de":
            disk.do_mkdir(directory)
        for file in ("d/f", "d/g", "e/h"):
            disk.do_file(file)
        self.d, self.e = (kernel.lookup(name).node for name in "de")
        self.f, self.g = (kernel.lookup(name, self.d).node for name in "fg")
        self.h = kernel.lookup("h", self.e).node
        client.session.take_outdated()

    def of(self, names: str) -> set[int]:
        return {getattr(self, name) for name in names}


OUTDATING: dict[str, tuple[str, Callable[[Kernel, Tree], object]]] = {
    "mknod": ("d", lambda kernel, tree: kernel.mknod("n", directory=tree.d)),
    "mkdir": ("d", lambda kernel, tree: kernel.mkdir("n", directory=tree.d)),
    "symlink": ("d", lambda kernel, tree: kernel.symlink("n", b"to", tree.d)),
    "create": ("d", lambda kernel, tree: kernel.create("n", directory=tree.d)),
    "link": ("e", lambda kernel, tree: kernel.link(tree.f, "n", tree.e)),
    "unlink": ("d", lambda kernel, tree: kernel.unlink("f", tree.d)),
    "rename": ("def", lambda kernel, tree: kernel.rename("f", "n", tree.d, tree.e)),
    "rename-here": ("df", lambda kernel, tree: kernel.rename("f", "n", tree.d, tree.d)),
    "rename-over": ("def", lambda kernel, tree: kernel.rename("f", "h", tree.d, tree.e)),
    "exchange": ("defh", lambda kernel, tree: kernel.rename("f", "h", tree.d, tree.e, 2)),
    "getattr": ("", lambda kernel, tree: kernel.getattr(tree.d)),
    "lookup": ("", lambda kernel, tree: kernel.lookup("f", tree.d)),
}


@pytest.mark.parametrize("name", OUTDATING)
def test_an_answer_from_before_is_outdated(client: Believing, name: str) -> None:
    client.agent()
    nodes, change = OUTDATING[name]
    tree = Tree(client)
    change(client.kernel, tree)
    assert client.outdated() == tree.of(nodes)
    assert client.outdated() == set()


def test_what_was_not_told_since_cannot_be_outdated(client: Believing) -> None:
    client.agent()
    tree = Tree(client)
    client.kernel.mkdir("n", directory=tree.d)
    assert client.outdated() == {tree.d}
    client.kernel.mkdir("m", directory=tree.d)
    assert client.outdated() == set()
    client.kernel.getattr(tree.d)
    client.kernel.mkdir("o", directory=tree.d)
    assert client.outdated() == {tree.d}


def test_nothing_is_outdated_by_what_could_not_be_done(client: Believing) -> None:
    client.agent()
    tree = Tree(client)
    with pytest.raises(OSError, match="EEXIST"):
        client.kernel.mkdir("f", directory=tree.d)
    assert client.outdated() == set()


def test_nothing_is_outdated_where_nothing_is_believed_for_long(disk: MemoryDisk) -> None:
    client = Believing(disk, flags2=0)
    tree = Tree(client)
    client.kernel.mkdir("n", directory=tree.d)
    assert client.outdated() == set()
    client.session.close()


def test_a_replay_outdates_what_the_change_itself_would(client: Believing) -> None:
    """But once it is done, and not before."""
    agent = client.agent()
    tree = Tree(client)
    place, new_place = client.disk.place("d/f"), client.disk.place("e/n")
    key = client.disk.at("d/f").key
    client.disk.do_rename("d/f", "e/n")
    client.kernel.deliver(Change(Kind.RENAME, place, key, new_place=new_place))
    batch = agent.wait()
    assert batch is not None
    uid = FIRST_UID + batch.sequence
    client.kernel.lookup("f", tree.d, uid=uid, pid=agent.pid)
    with pytest.raises(OSError, match="ENOENT"):
        client.kernel.lookup("n", tree.e, uid=uid, pid=agent.pid)
    assert client.outdated() == set()
    client.kernel.rename("f", "n", tree.d, tree.e, uid=uid, pid=agent.pid)
    assert client.outdated() == tree.of("def")


# An agent that does not get on --------------------------------------------------------


def test_what_waits_for_too_long(client: Believing, clock: Clock) -> None:
    agent = client.agent()
    client.disk.do_file("x")
    node = client.kernel.lookup("x").node
    client.session.doubtful.clear()
    assert not client.session.look_at_progress()
    client.kernel.deliver(do_remove(client.disk, "x"))
    assert client.session.doubtful.is_set(), "whoever looks at progress is woken"
    assert client.session.look_at_progress()
    clock.now += belief.LATE_SECONDS
    assert client.session.look_at_progress()
    assert client.notified() == []
    clock.now += 0.001
    assert client.session.look_at_progress()
    assert set(client.notified()) >= {("name", ROOT, b"x"), ("node", node, -1)}
    # Meanwhile nothing is believed for long,
    client.disk.do_file("y")
    assert seconds(client.kernel, "y") == (1, 1)
    # and when the agent has got on everything is again.
    done = 0
    while (batch := agent.wait(done, [(0, ENOENT)] if done else [])) is not None:
        done = batch.number
    assert not client.session.look_at_progress()
    assert seconds(client.kernel, "y") == (DAY, DAY)


def test_whoever_gets_on_is_not_late(client: Believing, clock: Clock) -> None:
    agent = client.agent()
    done = 0
    for index in range(5):
        client.kernel.deliver(do_file(client.disk, f"x{index}"))
        clock.now += 0.9
        assert client.session.look_at_progress()
        assert client.notified() == []
        batch = agent.wait(done)
        assert batch is not None
        for offset, step in enumerate(batch.steps):
            uid = FIRST_UID + batch.sequence + offset
            client.kernel.mknod(step.name, step.argument, uid=uid, pid=agent.pid)
        done = batch.number
        agent.wait(done)


# What the agent does ------------------------------------------------------------------


def test_a_name_that_was_taken_for_absent_is_asked_for_first(client: Believing) -> None:
    """As a name whose end the client has seen before it was told that there is such a name."""
    agent = client.agent()
    client.disk.do_mkdir("x")
    change = do_remove(client.disk, "x")
    assert client.absent("x") == (0, DAY)
    client.kernel.deliver(change)
    batch = agent.wait()
    assert batch is not None
    assert [(step.op, step.name) for step in batch.steps] == [(LOOK, b"x"), (RMDIR, b"x")]
    assert batch.steps[0].argument == AGAIN


def closed(client: Believing, change: Callable[[], None]) -> list[int]:
    agent = client.agent()
    inode = client.disk.do_file("f")
    client.kernel.lookup("f")
    change()
    client.kernel.deliver(Change(Kind.CLOSE_WRITE, client.disk.place("f"), inode.key))
    batch = agent.wait()
    assert batch is not None
    return [step.op for step in batch.steps]


def test_a_close_after_which_the_file_is_as_it_was_told(client: Believing) -> None:
    assert LOOK not in closed(client, lambda: None)


def test_a_close_after_which_the_file_is_another(client: Believing) -> None:
    def map_and_write() -> None:
        client.disk.at("f").times[1] += 1

    operations = closed(client, map_and_write)
    assert operations[0] == LOOK
    assert len(operations) == 2


def test_a_close_after_a_change_that_is_told_anyway(client: Believing) -> None:
    agent = client.agent()
    inode = client.disk.do_file("f")
    client.kernel.lookup("f")
    inode.times[1] += 1
    place = client.disk.place("f")
    client.kernel.deliver(
        Change(Kind.MODIFY, place, inode.key), Change(Kind.CLOSE_WRITE, place, inode.key)
    )
    batch = agent.wait()
    assert batch is not None
    assert LOOK not in [step.op for step in batch.steps]
