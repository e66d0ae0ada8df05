"""Random histories of which parts are lost: whoever follows the steps ends at the disk."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from farwatch.events import Change, Kind
from farwatch.session import delivery
from farwatch.session.session import Session
from tests.session.kernel import Agent, Kernel, in_session
from tests.session.kernel import settings as session_settings
from tests.session.memory import MemoryDisk
from tests.session.upkeeping import Keeper

ALL = 0xFFF
MADE, UNLINKED, RENAMED = (1, 2, 3), (5, 6), 7
NAMES = "abcd"
DIRECTORIES = "de"


class World:
    """Two watched directories, d and e, on a disk that somebody else changes."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        for directory in DIRECTORIES:
            disk.do_mkdir(directory)
        for name in "ab":
            disk.do_file(f"d/{name}", b"x")
        session = Session(in_session(disk), session_settings(), disk, lambda thread, key: None)
        self.kernel = Kernel(disk, session)
        self.kernel.init()
        self.keeper = Keeper(session, disk)
        self.agent = Agent(self.kernel).register()
        self.nodes = {name: self.kernel.lookup(name).node for name in DIRECTORIES}
        self.agent.watch([(node, 77, ALL) for node in self.nodes.values()])
        self.keeper.finish()
        self.done = 0
        self.believed = {
            node: {name for name in "ab" if directory == "d"}
            for directory, node in self.nodes.items()
        }
        self.follow()

    def do(self, op: str, path: str, other: str) -> list[Change]:
        """One change, if it can be made, and what a source would tell of it."""
        disk = self.disk
        directory, _, name = path.rpartition("/")
        exists = name.encode() in disk.at(directory).children
        if op == "create":
            if exists:
                return []
            inode = disk.do_file(path, b"new")
            return [Change(Kind.CREATE, disk.place(path), inode.key)]
        if not exists:
            return []
        place, key = disk.place(path), disk.at(path).key
        if op == "write":
            disk.do_write(path, b"other")
            return [Change(kind, place, key) for kind in (Kind.MODIFY, Kind.CLOSE_WRITE)]
        if op == "remove":
            disk.do_close(disk.do_remove(path))
            gone = Change(Kind.DEATH, None, key, linked=True)
            return [Change(Kind.DELETE, place, key), gone]
        other_directory, _, other_name = other.rpartition("/")
        if other == path or other_name.encode() in disk.at(other_directory).children:
            return []
        disk.do_rename(path, other)
        return [Change(Kind.RENAME, place, key, new_place=disk.place(other))]

    def follow(self) -> None:
        """The agent is told everything, and the watchers believe it."""
        agent = self.agent
        batch = agent.woken() if agent.parked is not None else agent.wait(self.done)
        while batch is not None:
            self.done = batch.number
            for step in batch.steps:
                self._believe(step.op, step.directory, step.name, step.new_directory, step.new_name)
            batch = agent.wait(self.done)

    def come(self) -> None:
        """The agent takes what there is, and what is made good when it has come."""
        self.follow()
        self.keeper.finish()
        self.follow()

    def _believe(
        self, op: int, directory: int, name: bytes, new_directory: int, new_name: bytes
    ) -> None:
        names = self.believed.get(directory, {""})
        if op in MADE:
            assert name.decode() not in names, "made twice"
            names.add(name.decode())
        elif op in UNLINKED and directory in self.believed:
            assert name.decode() in names, "removed, and was not there"
            names.remove(name.decode())
        elif op == RENAMED:
            if directory in self.believed:
                names.remove(name.decode())
            if new_directory in self.believed:
                self.believed[new_directory].add(new_name.decode())

    def require_right(self) -> None:
        for directory, node in self.nodes.items():
            there = {name.decode() for name in self.disk.at(directory).children}
            assert self.believed[node] == there, directory


paths = st.builds("{}/{}".format, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES))
steps = st.tuples(
    st.sampled_from(["create", "create", "write", "remove", "rename", "rename"]),
    paths,
    paths,
    st.sampled_from(["told", "told and done", "lost", "made good"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whatever_is_lost(history: list[tuple[str, str, str, str]]) -> None:
    with MemoryDisk() as disk:
        world = World(disk)
        is_lost = False
        for op, path, other, fate in history:
            changes = world.do(op, path, other)
            is_lost |= fate in ("lost", "made good") and bool(changes)
            if not is_lost:
                world.kernel.deliver(*changes)
            if fate == "told and done" and not is_lost:
                world.follow()
            if fate == "made good":
                world.keeper.lose()
                world.follow()
                world.require_right()
                is_lost = False
        world.keeper.lose()
        world.follow()
        world.require_right()
        # And of all that nothing is told once more.
        before = {node: set(names) for node, names in world.believed.items()}
        world.keeper.lose()
        assert world.agent.parked is not None
        assert world.kernel.session.answer() is None
        assert world.believed == before
        world.kernel.session.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60), st.integers(1, 8))
def test_whatever_is_given_up(history: list[tuple[str, str, str, str]], most: int) -> None:
    """The agent comes now and then, and no more is kept for it than a few replays."""
    kept = mock.patch.object(delivery, "_MOST_WITHOUT_AGENT", most)
    patience = mock.patch.object(delivery, "_FROZEN_SECONDS", -1.0)
    with MemoryDisk() as disk, kept, patience:
        world = World(disk)
        for op, path, other, fate in history:
            world.kernel.deliver(*world.do(op, path, other))
            if fate == "made good":
                world.come()
                world.require_right()
            elif fate == "lost":
                world.keeper.finish()
        world.come()
        world.require_right()
        assert world.kernel.session.delivery.is_idle
        assert world.kernel.session.view.pending == {}
        for node in world.kernel.session.view.nodes.by_id.values():
            assert (node.pins, node.unlinks) == (0, 0)
        world.kernel.session.close()
