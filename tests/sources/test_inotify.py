"""The source of who may not watch whole file systems.  Needs no privileges."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.events import READING, Mask, Place
from farwatch.export.attributes import SetAttr
from farwatch.linux.files import RENAME_EXCHANGE, renameat2
from farwatch.sources.inotify.heard import Heard
from tests.sources.followed import Followed, Told, following

CREATE, DELETE, MODIFY, ATTRIB = Mask.CREATE, Mask.DELETE, Mask.MODIFY, Mask.ATTRIB
CLOSE_WRITE, RENAME, DELETE_SELF = Mask.CLOSE_WRITE, Mask.RENAME, Mask.DELETE_SELF
DIR = Mask.ISDIR


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Followed]:
    with following(tmp_path) as followed:
        yield followed


def readable(tree: Followed) -> bool:
    poll = select.poll()
    poll.register(tree.source, select.POLLIN)
    return bool(poll.poll(0))


def append(path: Path) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"x")


# What others do ---------------------------------------------------------------------------


def test_a_file_is_made_written_and_removed(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"x")
    made = tree.records()
    assert [Mask(record.mask) for record in made] == [CREATE, MODIFY, CLOSE_WRITE]
    assert {record.node for record in made} == {tree.export.node_at(tree.root, b"a")}
    assert {record.place for record in made} == {Place(tree.root, b"a")}
    (tree.path / "a").unlink()
    assert tree.heard() == [Told(ATTRIB, None), Told(DELETE_SELF, None), Told(DELETE, "a")]


def test_a_change_is_told_once_though_file_and_directory_are_marked(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    tree.records()
    tree.know("a")
    os.chmod(tree.path / "a", 0o600)
    os.chmod(tree.path / "a", 0o644)
    assert tree.heard() == [Told(ATTRIB, "a"), Told(ATTRIB, "a")]
    os.link(tree.path / "a", tree.path / "b")
    assert tree.heard() == [Told(ATTRIB, None), Told(CREATE, "b")]
    append(tree.path / "b")
    assert tree.heard() == [Told(MODIFY, "b"), Told(CLOSE_WRITE, "b")]


def test_what_is_done_by_a_name_in_a_directory_that_nobody_follows(tree: Followed) -> None:
    (tree.path / "far").mkdir()
    (tree.path / "a").write_bytes(b"")
    os.link(tree.path / "a", tree.path / "far" / "b")
    tree.records()
    key = tree.know("a")
    tree.export.let_go(tree.export.lookup(tree.root, b"far")[0])
    append(tree.path / "far" / "b")
    found = tree.records()
    assert [(Mask(r.mask), r.place, r.node) for r in found] == [
        (MODIFY, None, key),
        (CLOSE_WRITE, None, key),
    ]
    (tree.path / "far" / "b").unlink()
    assert tree.heard() == [Told(ATTRIB, "elsewhere")], "no name that came or went explains it"


def test_a_removed_file_is_let_go_of_at_once(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    key = tree.know("a")
    tree.records()
    (tree.path / "a").unlink()
    found = tree.records()
    assert [Mask(record.mask) for record in found] == [ATTRIB, DELETE_SELF, DELETE]
    assert {record.node for record in found} == {key}
    assert not tree.export.exists(key)


def test_a_removed_file_that_somebody_has_open(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    key = tree.know("a")
    with open(tree.path / "a", "ab", buffering=0) as held:
        tree.records()
        (tree.path / "a").unlink()
        assert tree.heard() == [Told(ATTRIB, None), Told(DELETE, "a")]
        (tree.path / "a").write_bytes(b"another")
        held.write(b"x")
        found = tree.records()
        assert [(Mask(r.mask), r.place) for r in found] == [
            (CREATE, Place(tree.root, b"a")),
            (MODIFY, Place(tree.root, b"a")),
            (CLOSE_WRITE, Place(tree.root, b"a")),
            (MODIFY, Place(tree.root, b"a")),
        ]
        assert [record.node == key for record in found] == [False, False, False, True]
    assert tree.heard() == [Told(CLOSE_WRITE, "a"), Told(DELETE_SELF, None)]


def test_renames(tree: Followed) -> None:
    (tree.path / "d").mkdir()
    (tree.path / "a").write_bytes(b"")
    tree.know("d")
    key = tree.know("a")
    tree.records()
    os.rename(tree.path / "a", tree.path / "d" / "b")
    (moved,) = tree.records()
    assert (moved.mask, moved.node) == (RENAME, key)
    assert moved.place == Place(tree.root, b"a")
    assert moved.new_place == Place(tree.know("d"), b"b")


def test_a_rename_over_what_is_known(tree: Followed) -> None:
    for name in ("a", "b"):
        (tree.path / name).write_bytes(b"")
    first, second = tree.know("a"), tree.know("b")
    tree.records()
    os.rename(tree.path / "a", tree.path / "b")
    found = tree.records()
    assert [(Mask(r.mask), r.node) for r in found] == [
        (RENAME, first),
        (ATTRIB, second),
        (DELETE_SELF, second),
    ]
    assert not tree.export.exists(second)


def test_a_rename_and_the_same_back_again_are_no_exchange(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    key = tree.know("a")
    tree.records()
    os.rename(tree.path / "a", tree.path / "b")
    os.rename(tree.path / "b", tree.path / "a")
    found = tree.records()
    assert [record.node for record in found] == [key, key]


@pytest.mark.parametrize("known", [(), ("a",), ("b",), ("a", "b")])
def test_an_exchange(tree: Followed, known: tuple[str, ...]) -> None:
    for name in ("a", "b"):
        (tree.path / name).write_bytes(b"")
    keys = [tree.export.node_at(tree.root, name) for name in (b"a", b"b")]
    for name in known:
        tree.know(name)
    tree.records()
    renameat2(-100, bytes(tree.path / "a"), -100, bytes(tree.path / "b"), RENAME_EXCHANGE)
    found = tree.records()
    assert [Mask(record.mask) for record in found] == [RENAME, RENAME]
    assert [record.node for record in found] == keys


def test_an_exchange_of_what_was_forgotten(tree: Followed) -> None:
    keys = []
    for name in (b"a", b"b"):
        (tree.path / os.fsdecode(name)).write_bytes(b"")
        tree.records()
        keys.append(tree.know(os.fsdecode(name)))
        tree.forget(keys[-1])
    renameat2(-100, bytes(tree.path / "a"), -100, bytes(tree.path / "b"), RENAME_EXCHANGE)
    assert [record.node for record in tree.records()] == keys


def test_halves_of_renames(tree: Followed, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "in").write_bytes(b"")
    os.rename(outside / "in", tree.path / "b")
    (came,) = tree.records()
    assert came.node == tree.export.node_at(tree.root, b"b")
    assert came.new_place == Place(tree.root, b"b")
    os.rename(tree.path / "b", outside / "out")
    (went,) = tree.records()
    assert (went.place, went.node) == (Place(tree.root, b"b"), came.node)
    for half in (came.place, went.new_place):
        assert half is not None
        assert tree.export.node_at(*half) is None


def test_directories(tree: Followed) -> None:
    (tree.path / "d").mkdir()
    assert tree.heard() == [Told(CREATE | DIR, "d")]
    key = tree.know("d")
    os.chmod(tree.path / "d", 0o700)
    assert tree.heard() == [Told(ATTRIB | DIR, "d")]
    (tree.path / "d" / "e").mkdir()
    (tree.path / "d" / "e").rmdir()
    tree.records()
    (tree.path / "d").rmdir()
    assert tree.heard() == [Told(DELETE_SELF | DIR, None), Told(DELETE | DIR, "d")]
    assert not tree.export.exists(key)


def test_a_directory_whose_parent_is_not_known_tells_of_itself(tree: Followed) -> None:
    (tree.path / "d" / "e").mkdir(parents=True)
    tree.records()
    parent, key = tree.know("d"), tree.know("d/e")
    tree.export.let_go(parent)
    tree.records()
    os.chmod(tree.path / "d" / "e", 0o700)
    (found,) = tree.records()
    assert (found.place, found.node) == (Place(key, b"."), key)


def test_names_that_are_gone_when_they_are_read(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    (tree.path / "a").unlink()
    (tree.path / "a").write_bytes(b"")
    os.rename(tree.path / "a", tree.path / "b")
    found = tree.records()
    masks = [Mask(record.mask) for record in found]
    assert masks == [CREATE, CLOSE_WRITE, DELETE, CREATE, CLOSE_WRITE, RENAME]
    first, second = found[0].node, found[3].node
    assert {record.node for record in found[:3]} == {first}
    assert {record.node for record in found[3:]} == {second}
    assert second == tree.export.node_at(tree.root, b"b")
    assert first is not None
    assert not tree.export.exists(first)


def test_the_end_of_what_was_never_known(tree: Followed) -> None:
    (tree.path / "d").mkdir()
    tree.know("d")
    tree.records()
    with open(tree.path / "d" / "a", "wb", buffering=0) as held:
        (tree.path / "d" / "a").unlink()
        (node,) = {record.node for record in tree.records()}
        held.write(b"x")
        assert [(record.mask, record.node) for record in tree.records()] == [(MODIFY, node)]
    assert tree.heard() == [Told(CLOSE_WRITE, "a"), Told(DELETE_SELF, None)]
    (tree.path / "d" / "b").mkdir()
    (tree.path / "d" / "b").rmdir()
    (tree.path / "d" / "c").touch()
    (tree.path / "d" / "c").unlink()
    (tree.path / "d").rmdir()
    *_, second, first, last = [told.mask for told in tree.heard()]
    assert last == DELETE | DIR
    assert {first, second} == {DELETE_SELF, DELETE_SELF | DIR}, "nothing is waited for any more"


def test_what_is_forgotten_is_not_followed(tree: Followed) -> None:
    (tree.path / "d").mkdir()
    tree.records()
    key = tree.know("d")
    tree.forget(key)
    (tree.path / "d" / "a").write_bytes(b"")
    assert tree.records() == []


def test_what_is_in_a_forgotten_directory_is_heard_of(tree: Followed) -> None:
    (tree.path / "d").mkdir()
    (tree.path / "d" / "a").write_bytes(b"")
    key = tree.know("d/a")
    home = tree.know("d")
    tree.records()
    tree.forget(home)
    append(tree.path / "d" / "a")
    os.rename(tree.path / "d" / "a", tree.path / "d" / "b")
    append(tree.path / "d" / "b")
    (tree.path / "d" / "b").unlink()
    found = tree.records()
    assert [Mask(record.mask) for record in found] == [
        MODIFY,
        CLOSE_WRITE,
        RENAME,
        MODIFY,
        CLOSE_WRITE,
        ATTRIB,
        DELETE_SELF,
        DELETE,
    ]
    assert {record.node for record in found} == {key}
    assert tree.export.exists(home)
    tree.forget(key)
    assert not tree.export.exists(home)
    (tree.path / "d" / "c").write_bytes(b"")
    assert tree.records() == []


def test_what_is_removed_and_used_before_anything_is_read(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"hello")
    key = tree.know("a")
    tree.records()
    tree.source.want(READING)
    with open(tree.path / "a", "rb", buffering=0) as held:
        (tree.path / "a").unlink()
        held.read()
        found = tree.records()
    assert [Mask(record.mask) for record in found] == [Mask.OPEN, ATTRIB, DELETE, Mask.ACCESS]
    assert {record.node for record in found} == {key}


def test_reading_is_told_while_it_is_wanted(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"x")
    tree.know("a")
    tree.records()
    (tree.path / "a").read_bytes()
    assert tree.records() == []
    tree.source.want(READING | CREATE)
    assert tree.source.wanted == READING
    (tree.path / "a").read_bytes()
    assert tree.heard() == [
        Told(Mask.OPEN, "a"),
        Told(Mask.ACCESS, "a"),
        Told(Mask.CLOSE_NOWRITE, "a"),
    ]
    tree.source.want(0)
    (tree.path / "a").read_bytes()
    assert tree.records() == []


def test_it_is_readable_while_something_waits(tree: Followed) -> None:
    assert not readable(tree)
    assert tree.source.queued() == 0
    (tree.path / "a").mkdir()
    assert readable(tree)
    assert tree.source.queued() > 0
    tree.records()
    assert not readable(tree)
    assert tree.source.queued() == 0


def test_an_overflow_is_told(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"")
    key = tree.know("a")
    tree.records()
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 2):
        os.chmod(tree.path / "a", 0o600 + number % 2)
    (tree.path / "a").unlink()
    masks = [record.mask for record in tree.records()]
    assert masks.count(Mask.Q_OVERFLOW) == 1
    assert not tree.export.exists(key), "whatever was lost, no dead file is held"


# What the server does itself --------------------------------------------------------------


def test_its_own_changes_are_its_own(tree: Followed) -> None:
    export, us = tree.export, tree.ourselves
    made, _, fd = export.create(tree.root, b"a", 0o644, os.O_RDWR, us)
    export.keep(made)
    export.write_from(fd, [memoryview(b"hello")], 0)
    with export.about(made):
        os.close(fd)
    export.setattr(made, None, SetAttr(mode=0o600, size=1), us)
    export.setxattr(made, b"user.x", b"1", 0, us)
    directory, _ = export.mkdir(tree.root, b"d", 0o755, us)
    export.keep(directory)
    export.symlink(directory, b"s", b"a", us)
    export.mknod(directory, b"f", 0o644, 0, us)
    export.link(made, directory, b"l")
    export.rename(directory, b"l", tree.root, b"m", 0)
    export.rename(tree.root, b"a", tree.root, b"m", RENAME_EXCHANGE)
    export.unlink(tree.root, b"a")
    export.unlink(tree.root, b"m")
    for name in (b"s", b"f"):
        export.unlink(directory, name)
    export.rmdir(tree.root, b"d")
    found = tree.records()
    assert {record.thread for record in found} == {threading.get_native_id()}
    kinds = {Mask(record.mask) & ~DIR for record in found}
    assert kinds >= {CREATE, DELETE, MODIFY, ATTRIB, CLOSE_WRITE, RENAME, DELETE_SELF}
    assert not export.exists(made)


def test_its_own_reading_is_its_own(tree: Followed) -> None:
    (tree.path / "a").write_bytes(b"hello")
    tree.source.want(READING)
    key = tree.know("a")
    tree.records()
    fd = tree.export.open(key, os.O_RDONLY)
    assert tree.export.read_into(fd, [memoryview(bytearray(8))], 0) == 5
    with tree.export.about(key):
        os.close(fd)
    with tree.export.opendir(tree.root) as listed:
        assert {entry.name for entry in listed.read(0, 4096)} == {b".", b"..", b"a"}
    found = tree.records()
    assert {record.thread for record in found} == {threading.get_native_id()}
    assert {Mask(record.mask) & ~DIR for record in found} == {
        Mask.OPEN,
        Mask.ACCESS,
        Mask.CLOSE_NOWRITE,
    }


def test_what_others_did_before_and_after_is_theirs(tree: Followed) -> None:
    export, us = tree.export, tree.ourselves
    (tree.path / "a").write_bytes(b"")
    (tree.path / "a").unlink()
    made, _, fd = export.create(tree.root, b"a", 0o644, os.O_RDWR, us)
    export.keep(made)
    with open(tree.path / "a", "ab", buffering=0) as other:
        other.write(b"x")
        export.write_from(fd, [memoryview(b"x")], 1)
        other.write(b"x")
    with export.about(made):
        os.close(fd)
    (tree.path / "a").unlink()
    (tree.path / "a").mkdir()
    assert tree.heard() == [
        Told(CREATE, "a"),
        Told(CLOSE_WRITE, "a"),
        Told(DELETE, "a"),
        Told(CREATE, "a", own=True),
        Told(MODIFY, "a"),
        Told(MODIFY, "a", own=True),
        Told(MODIFY, "a"),
        Told(CLOSE_WRITE, "a"),
        Told(CLOSE_WRITE, "a", own=True),
        Told(ATTRIB, None),
        Told(DELETE_SELF, None),
        Told(DELETE, "a"),
        Told(CREATE | DIR, "a"),
    ]


def test_what_others_do_meanwhile_is_theirs(tree: Followed) -> None:
    with tree.source.doing(names={Place(tree.root, b"a"): CREATE}) as doing:
        (tree.path / "a").mkdir()
        doing.concern(tree.know("a"), Place(tree.root, b"a"))
        (tree.path / "b").mkdir()
        (tree.path / "a").rmdir()
        (tree.path / "a").mkdir()
        assert tree.records() == [], "what it concerns is not known before it is over"
    assert readable(tree)
    assert [(told.name, told.own) for told in tree.heard() if told.mask & CREATE] == [
        ("a", True),
        ("b", False),
        ("a", False),
    ]


def test_what_failed_claims_nothing(tree: Followed) -> None:
    with pytest.raises(FileNotFoundError):
        tree.export.unlink(tree.root, b"a")
    (tree.path / "a").write_bytes(b"")
    (tree.path / "a").unlink()
    assert not any(told.own for told in tree.heard())


def test_what_is_removed_while_the_end_of_another_is_read(
    tree: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export lets go of it as well, or its end would wait for the client to forget it."""
    for name in "ab":
        (tree.path / name).write_bytes(b"")
    tree.records()
    keys = {tree.know("a"), tree.know("b")}
    take, calls = tree.source._take, 0

    def take_later() -> list[Heard]:
        nonlocal calls
        calls += 1
        if calls == 2:
            (tree.path / "b").unlink()
        return take()

    monkeypatch.setattr(tree.source, "_take", take_later)
    (tree.path / "a").unlink()
    found = tree.records()
    assert {record.node for record in found if record.mask & DELETE_SELF} == keys
