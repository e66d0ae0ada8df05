"""After a gap: the watchers' steps lead from what was told to what the disk holds."""

from __future__ import annotations

import errno

import pytest

from farwatch.events import Change, Key, Kind, Mask, Record
from farwatch.session import delivery, resync, upkeep
from tests.session.kernel import ROOT, Agent, Kernel
from tests.session.memory import MemoryDisk
from tests.session.upkeeping import Keeper

ALL = 0xFFF
MKNOD, MKDIR, LINK, UNLINK, RMDIR, RENAME, TOUCH = 1, 2, 4, 5, 6, 7, 8
NAMES = {
    1: "make", 2: "mkdir", 3: "symlink", 4: "link", 5: "unlink", 6: "rmdir", 7: "rename",
    8: "touch", 9: "close",
}  # fmt: skip
LOST = Record(int(Mask.Q_OVERFLOW), 0, None, None)


@pytest.fixture
def keeper(kernel: Kernel) -> Keeper:
    return Keeper(kernel.session, kernel.disk)


def watch(agent: Agent, keeper: Keeper, *paths: str) -> None:
    """These are watched, and that is seen."""
    kernel = agent.kernel
    watches = []
    for path in paths:
        node = kernel.walk(path).node if path else ROOT
        watches.append((node, 0 if node == ROOT else 77, ALL))
    agent.watch(watches)
    keeper.finish()


def another(kernel: Kernel, pid: int = 950) -> Agent:
    """Another agent, whose first scan finds that d is watched."""
    agent = Agent(kernel, pid)
    agent.hello()
    agent.hello(pid=pid + 1)
    agent.watch([(kernel.lookup("d").node, 77, ALL)])
    return agent


def steps(agent: Agent, done: int = 0) -> tuple[list[str], int]:
    """What is left to be replayed, all of it: kinds and names; and the last batch's number."""
    found = []
    batch = agent.woken() if agent.parked is not None else agent.wait(done)
    while batch is not None:
        done = batch.number
        found += [said(step.op, step.name, step.new_name) for step in batch.steps]
        batch = agent.wait(done)
    return [words for words in found if not words.startswith("14")], done


def wait(agent: Agent, done: int = 0) -> None:
    """It is there, and waits to be told something."""
    while (batch := agent.wait(done)) is not None:
        assert not batch.steps
        done = batch.number


def said(op: int, name: bytes, new_name: bytes) -> str:
    return " ".join(filter(None, (NAMES.get(op, str(op)), name.decode(), new_name.decode())))


def create(kernel: Kernel, path: str) -> Key:
    inode = kernel.disk.do_file(path)
    kernel.deliver(Change(Kind.CREATE, kernel.disk.place(path), inode.key))
    return inode.key


# The source has lost something -----------------------------------------------------------


@pytest.fixture
def world(disk: MemoryDisk, kernel: Kernel, agent: Agent, keeper: Keeper) -> Kernel:
    """d is watched, with three files; nothing is on its way."""
    disk.do_mkdir("d")
    for name in "abc":
        disk.do_file(f"d/{name}", b"123")
    disk.do_mkdir("e")
    watch(agent, keeper, "d")
    steps(agent)
    return kernel


def test_names_that_were_never_asked_for(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    disk.do_close(disk.do_remove("d/a"))
    disk.do_rename("d/b", "d/x")
    disk.do_file("d/new")
    disk.do_mkdir("d/sub")
    keeper.lose()
    told = steps(agent)[0]
    assert sorted(told) == ["close new", "make new", "mkdir sub", "rename b x", "unlink a"]


def test_content(world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper) -> None:
    disk.do_write("d/a", b"other")
    disk.at("d/b").uid = 7
    keeper.lose()
    assert steps(agent)[0] == ["touch a", "close a", "touch b"]


def test_nothing_was_lost(world: Kernel, agent: Agent, keeper: Keeper) -> None:
    keeper.lose()
    assert steps(agent)[0] == []


def test_told_once(world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper) -> None:
    disk.do_file("d/new")
    disk.do_write("d/a", b"other")
    keeper.lose()
    _, done = steps(agent)
    keeper.lose()
    keeper.lose()
    assert steps(agent, done)[0] == []


def test_what_was_told_as_usual_is_not_told_again(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    create(world, "d/new")
    place, key = disk.place("d/a"), disk.at("d/a").key
    disk.do_write("d/a", b"other")
    world.deliver(Change(Kind.MODIFY, place, key), Change(Kind.CLOSE_WRITE, place, key))
    old = disk.place("d/b")
    moved = disk.at("d/b").key
    disk.do_rename("d/b", "d/z")
    world.deliver(Change(Kind.RENAME, old, moved, new_place=disk.place("d/z")))
    gone = disk.place("d/c")
    inode = disk.do_remove("d/c")
    world.deliver(Change(Kind.DELETE, gone, inode.key))
    _, done = steps(agent)
    keeper.lose()
    assert steps(agent, done)[0] == []


def test_what_the_client_did_itself_is_not_told(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    d = world.lookup("d").node
    world.mknod("own", directory=d)
    world.unlink("a", directory=d)
    world.rename("b", "z", directory=d)
    world.rename("c", "moved", directory=d, new_directory=ROOT)
    world.mkdir("sub", directory=d)
    keeper.lose()
    assert steps(agent)[0] == []


def test_a_directory_is_gone(world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper) -> None:
    for name in "abc":
        inode = disk.do_remove(f"d/{name}")
        disk.do_close(inode)
    disk.do_remove("d")
    keeper.lose()
    assert steps(agent)[0] == ["unlink a", "unlink b", "unlink c", "rmdir d"]


def test_a_directory_has_moved(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    disk.do_rename("d", "e/d")
    disk.do_file("e/d/new")
    keeper.lose()
    told = steps(agent)[0]
    assert "make new" in told
    assert any(words.startswith("rename d") for words in told)


def test_moved_from_one_watched_directory_to_another(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    watch(agent, keeper, "d", "e")
    disk.do_rename("d/a", "e/b")
    keeper.lose()
    assert steps(agent)[0] == ["rename a b"]


def test_a_watched_file_whose_directory_is_not(
    kernel: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    disk.do_file("f")
    disk.do_file("g")
    watch(agent, keeper, "f", "g")
    _, done = steps(agent)
    disk.do_write("f", b"other")
    disk.do_close(disk.do_remove("g"))
    keeper.lose()
    assert sorted(steps(agent, done)[0]) == ["close f", "touch f", "unlink g"]


def test_a_node_without_a_name_has_died(
    kernel: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    """Its death is told to its own watches: nobody else could be told."""
    disk.do_file("f")
    node = kernel.lookup("f").node
    place = disk.place("f")
    inode = disk.do_remove("f")
    kernel.deliver(Change(Kind.DELETE, place, inode.key))
    batch = agent.wait()
    assert batch is not None
    assert [NAMES.get(step.op, step.op) for step in batch.steps] == [12, "unlink"]
    mark = {"uid": batch.mark(UNLINK), "pid": agent.pid}
    kernel.lookup("f", **mark)
    kernel.unlink("f", **mark)
    assert agent.wait(batch.number) is None
    disk.do_close(inode)
    keeper.lose()
    words, _ = steps(agent)
    assert words
    assert kernel.session.view.nodes.by_id[node].lookups


def test_what_is_being_changed_while_it_is_compared(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the source reports meanwhile is part of the gap: it is told once, as it is."""
    monkeypatch.setattr(upkeep, "_SLICE_SECONDS", 0.0)
    disk.do_file("d/new")
    keeper.upkeep.lose("a test")
    keeper.upkeep.step()  # begins
    assert keeper.upkeep.is_comparing
    inode = disk.at("d/new")
    place = disk.place("d/new")
    keeper.source.waiting.append([Record(int(Mask.CREATE), 9, place, inode.key)])
    keeper.upkeep.note()
    disk.do_rename("d/new", "d/newer")
    keeper.source.waiting.append(
        [Record(int(Mask.RENAME), 9, place, inode.key, disk.place("d/newer"))]
    )
    keeper.finish()
    assert steps(agent)[0] == ["make newer", "close newer"]


def test_the_source_loses_more_meanwhile(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper
) -> None:
    disk.do_file("d/one")
    keeper.source.waiting.append([LOST])
    keeper.lose()
    disk.do_file("d/two")
    keeper.lose()
    assert [w for w in steps(agent)[0] if w.startswith("make")] == ["make one", "make two"]


def test_a_watch_that_nobody_could_confirm(
    disk: MemoryDisk, kernel: Kernel, agent: Agent, keeper: Keeper
) -> None:
    """What was lost while a directory was listed may be what the listing shows."""
    disk.do_mkdir("d")
    disk.do_file("d/a")
    node = kernel.lookup("d").node
    agent.watch([(node, 77, ALL)])
    keeper.source.waiting.append([LOST])
    keeper.finish()
    known = kernel.session.view.known
    assert disk.at("d").key in known._unconfirmed
    keeper.lose()
    keeper.finish()
    assert known._unconfirmed == set()
    assert list(known.directories[disk.at("d").key]) == [b"a"]


def test_a_directory_that_cannot_be_listed(
    world: Kernel, disk: MemoryDisk, agent: Agent, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of it, and the rest is."""
    watch(agent, keeper, "d", "e")
    real = MemoryDisk.names

    def names(self: MemoryDisk, directory: Key) -> list[bytes]:
        if directory == disk.at("d").key:
            raise OSError(errno.EIO, "no")
        return real(self, directory)

    monkeypatch.setattr(MemoryDisk, "names", names)
    disk.do_remove("d/a")
    disk.do_file("e/new")
    keeper.lose()
    assert steps(agent)[0] == ["make new", "close new"]


# Nobody has replayed -----------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_MOST_WITHOUT_AGENT", 10)


@pytest.fixture
def alone(few: None, world: Kernel, agent: Agent) -> Kernel:
    """As ``world``, and the agent is gone."""
    world.releasedir(ROOT, agent.fh)
    assert world.session.answer() is not None, "its WAIT is interrupted"
    return world


def test_nothing_more_is_kept(alone: Kernel, disk: MemoryDisk) -> None:
    for number in range(100):
        create(alone, f"d/{number}")
        place = disk.place("d/a")
        alone.deliver(Change(Kind.MODIFY, place, disk.at("d/a").key))
    assert alone.session.delivery.has_gap
    assert len(alone.session.delivery._queue) == 0
    assert alone.session.view.pending == {}
    assert all(node.pins == 0 for node in alone.session.view.nodes.by_id.values())


def everything(kernel: Kernel) -> None:
    """All kinds of changes, each delivered as it happens; more than are kept."""
    disk = kernel.disk
    for number in range(4):
        create(kernel, f"d/new{number}")
    place, key = disk.place("d/a"), disk.at("d/a").key
    disk.do_close(disk.do_remove("d/a"))
    kernel.deliver(Change(Kind.DELETE, place, key), Change(Kind.DEATH, None, key))
    create(kernel, "d/a")
    old, key = disk.place("d/b"), disk.at("d/b").key
    disk.do_rename("d/b", "d/bb")
    kernel.deliver(Change(Kind.RENAME, old, key, new_place=disk.place("d/bb")))
    disk.do_write("d/c", b"other")
    kernel.deliver(Change(Kind.MODIFY, disk.place("d/c"), disk.at("d/c").key))
    inode = disk.do_mkdir("d/sub")
    kernel.deliver(Change(Kind.CREATE, disk.place("d/sub"), inode.key, is_dir=True))
    old = disk.place("d/new1")
    key = disk.do_remove("d/new1").key
    kernel.deliver(Change(Kind.DELETE, old, key))


EVERYTHING = [
    "close a", "close c", "close new0", "close new2", "close new3", "make a", "make new0",
    "make new2", "make new3", "mkdir sub", "rename b bb", "touch c", "unlink a",
]  # fmt: skip


def test_what_is_made_good_when_an_agent_comes(
    alone: Kernel, disk: MemoryDisk, keeper: Keeper
) -> None:
    everything(alone)
    create(alone, "d/later")
    assert alone.session.delivery.has_gap
    keeper.finish()
    assert alone.session.delivery.has_gap, "nobody is there to be told"
    second = another(alone)
    wait(second)
    keeper.finish()
    assert sorted(steps(second)[0]) == sorted([*EVERYTHING, "make later", "close later"])
    assert not alone.session.delivery.has_gap


def test_after_that_all_is_as_usual(alone: Kernel, keeper: Keeper) -> None:
    everything(alone)
    create(alone, "d/later")
    second = another(alone)
    wait(second)
    keeper.finish()
    _, done = steps(second)
    create(alone, "d/after")
    assert steps(second, done)[0] == ["make after"]
    keeper.lose()
    assert steps(second)[0] == []
    assert alone.session.view.pending == {}


def test_a_frozen_agent(
    few: None, world: Kernel, agent: Agent, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a batch, and does not come for the next one; then it does."""
    create(world, "d/first")
    batch = agent.woken()
    assert batch is not None
    monkeypatch.setattr(delivery, "_FROZEN_SECONDS", -1.0)
    everything(world)
    create(world, "d/later")
    assert world.session.delivery.has_gap
    assert len(world.session.delivery._queue) == 0
    keeper.finish()
    # What it was about to do is still armed, and it does it now.
    d = world.lookup("d").node
    world.mknod("first", 0o100600, d, uid=batch.mark(MKNOD), pid=agent.pid)
    wait(agent, batch.number)
    keeper.finish()
    assert sorted(steps(agent)[0]) == sorted([*EVERYTHING, "make later", "close later"])


def test_a_slow_agent_keeps_what_it_can(few: None, world: Kernel, agent: Agent) -> None:
    create(world, "d/first")
    assert agent.woken() is not None
    for number in range(50):
        create(world, f"d/{number}")
    assert not world.session.delivery.has_gap


def test_too_slow(
    few: None, world: Kernel, agent: Agent, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(world, "d/first")
    batch = agent.woken()
    assert batch is not None
    monkeypatch.setattr(delivery, "_MOST", 40)
    for number in range(50):
        create(world, f"d/{number}")
    assert world.session.delivery.has_gap
    assert agent.wait(batch.number) is None
    keeper.finish()
    made = [words for words in steps(agent)[0] if words.startswith("make")]
    assert sorted(made) == sorted(f"make {number}" for number in range(50))


def test_more_is_to_be_made_good_than_is_kept(
    alone: Kernel, disk: MemoryDisk, keeper: Keeper
) -> None:
    """That is no gap again."""
    for number in range(200):
        create(alone, f"d/{number}")
    second = another(alone)
    wait(second)
    keeper.finish()
    assert not alone.session.delivery.has_gap
    made = [words for words in steps(second)[0] if words.startswith("make")]
    assert len(made) == 200


def test_an_agent_dies_while_it_makes_good(alone: Kernel, keeper: Keeper) -> None:
    everything(alone)
    create(alone, "d/later")
    second = another(alone)
    wait(second)
    keeper.finish()
    batch = second.woken()
    assert batch is not None
    alone.releasedir(ROOT, second.fh)
    third = another(alone, 960)
    words, _ = steps(third)
    assert sorted(words) == sorted([*EVERYTHING, "make later", "close later"])


def test_names_nobody_is_known_to_watch(
    few: None, disk: MemoryDisk, kernel: Kernel, agent: Agent, keeper: Keeper
) -> None:
    """A scan may have missed the watch: what was planned and dropped is told all the same."""
    kernel.releasedir(ROOT, agent.fh)
    disk.do_mkdir("d")
    kernel.lookup("d")
    for number in range(20):
        create(kernel, f"d/{number}")
    create(kernel, "d/later")
    second = Agent(kernel, 950).register()
    wait(second)
    keeper.finish()
    made = [words for words in steps(second)[0] if words.startswith("make")]
    assert sorted(made) == sorted(["make later", *(f"make {number}" for number in range(20))])


def test_a_second_link_that_went(alone: Kernel, disk: MemoryDisk, keeper: Keeper) -> None:
    disk.do_link("d/a", "d/link")
    key = disk.at("d/a").key
    alone.deliver(Change(Kind.CREATE, disk.place("d/link"), key, linked=True))
    place = disk.place("d/link")
    disk.do_remove("d/link")
    alone.deliver(Change(Kind.DELETE, place, key))
    for number in range(20):
        create(alone, f"d/{number}")
    second = another(alone)
    wait(second)
    keeper.finish()
    assert all(words.split()[0] in ("make", "close") for words in steps(second)[0])
    d = alone.lookup("d").node
    assert alone.lookup("a", d).attributes.nlink == 1
    assert all(node.unlinks == 0 for node in alone.session.view.nodes.by_id.values())


def test_progress_is_shown(
    world: Kernel, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resync, "PATIENCE", 0.0)
    with caplog.at_level("INFO"):
        keeper.lose()
    said = [record.getMessage() for record in caplog.records]
    assert any(words.startswith("compared 1 of ") for words in said)
    assert "changes to be told" in said[-1]
