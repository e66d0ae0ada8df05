"""Watches that are placed again on a new connection, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farwatch.abi.fsnotify import MARK, Mode
from farwatch.client.fsnotify import Fsnotify
from farwatch.client.places import Places
from farwatch.events import Change, Kind
from farwatch.session.session import Session
from tests.client.inprocess import ALL, InProcess, heard
from tests.session import kernel as dummy
from tests.session.memory import MemoryDisk


class Meanwhile(InProcess):
    """Something happens just before a MARK, or just after."""

    def __init__(self, disk: MemoryDisk, core: Fsnotify | None = None) -> None:
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None
        session = Session(dummy.in_session(disk), dummy.settings(), disk, lambda thread, key: None)
        super().__init__(disk, Mode.REMOTE, session=session, core=core)

    async def ask(self, opcode: int, node: int, body: bytes) -> bytes:
        before, after = self.before, self.after
        if opcode == MARK and before is not None:
            self.before = None
            before()
        answer = await super().ask(opcode, node, body)
        if opcode == MARK and after is not None:
            self.after = None
            after()
        return answer


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_happens_while_it_is_placed_again_is_told_once(when: str) -> None:
    with MemoryDisk() as disk:
        places = Places()
        with Meanwhile(disk) as old:
            group = old.watch("/", ALL)
            place = old.run(places.look(old.kernel, b"/", follow=True))
            places.add(old.kernel.inodes.root.inode.id, place)
            core = old.kernel.core
        disk.do_file("gap")
        with Meanwhile(disk, core) as new:

            def make() -> None:
                inode = disk.do_file("x")
                change = Change(Kind.CREATE, disk.place("x"), inode.key)
                new.session.deliver([change], frozenset())

            setattr(new, when, make)
            new.run(places.resume(new.kernel))
            new.listen()
            assert sorted(heard(group)) == ["1:CREATE(gap)", "1:CREATE(x)"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_happens_while_a_watch_is_placed_is_not_new_on_another_connection(
    when: str,
) -> None:
    """It was told then, or was there before; at worst nobody knows, and that is said."""
    with MemoryDisk() as disk:
        places = Places()
        with Meanwhile(disk) as old:
            old.kernel.on_fact = places.follow
            group = old.kernel.core.group()

            def make() -> None:
                inode = disk.do_file("x")
                change = Change(Kind.CREATE, disk.place("x"), inode.key)
                old.session.deliver([change], frozenset())

            setattr(old, when, make)
            old.run(places.watch(old.kernel, group, "/", ALL))
            old.listen()
            heard(group)
            core = old.kernel.core
        with Meanwhile(disk, core) as new:
            new.run(places.resume(new.kernel))
            new.listen()
            assert "1:CREATE(x)" not in heard(group)
