"""What the source hears of each operation: what it hears natively, and no more."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest

from farwatch.abi.inotify import parse
from farwatch.events import Key, Mask, Place
from farwatch.export.tree import NOW, Export, SetAttr
from farwatch.linux.inotify import IN_ALL_EVENTS, Inotify
from tests.export.exporting import ROOT, Stage, open_descriptors

pytestmark = pytest.mark.root

Operation = Callable[[Export, Key], object]


def _set(changes: SetAttr) -> Operation:
    return lambda export, node: export.setattr(node, None, changes, ROOT)


OPERATIONS: dict[str, tuple[Operation, Mask]] = {
    "lookup": (lambda export, node: export.lookup(export.root_key, b"name"), Mask(0)),
    "node_at": (lambda export, node: export.node_at(export.root_key, b"name"), Mask(0)),
    "getattr": (lambda export, node: export.getattr(node), Mask(0)),
    "listxattr": (lambda export, node: export.listxattr(node), Mask(0)),
    "inside": (lambda export, node: export.inside(export.root_key), Mask(0)),
    "nothing": (_set(SetAttr()), Mask(0)),
    "mode": (_set(SetAttr(mode=0o600)), Mask.ATTRIB),
    "owner": (_set(SetAttr(uid=5, gid=6)), Mask.ATTRIB),
    "size": (_set(SetAttr(size=3)), Mask.MODIFY),
    "atime": (_set(SetAttr(atime_ns=5)), Mask.ACCESS),
    "mtime": (_set(SetAttr(mtime_ns=NOW)), Mask.MODIFY),
    "times": (_set(SetAttr(atime_ns=5, mtime_ns=NOW)), Mask.ATTRIB),
    "setxattr": (lambda export, node: export.setxattr(node, b"user.x", b"", 0, ROOT), Mask.ATTRIB),
    "open": (
        lambda export, node: os.close(export.open(node, os.O_RDWR)),
        Mask.OPEN | Mask.CLOSE_WRITE,
    ),
    "create": (
        lambda export, node: os.close(export.create(export.root_key, b"new", 0, 2, ROOT)[2]),
        Mask.CREATE | Mask.OPEN | Mask.CLOSE_WRITE,
    ),
    "unlink": (lambda export, node: export.unlink(export.root_key, b"name"), Mask.DELETE),
}


def _heard(inotify: Inotify) -> list[tuple[int, Mask]]:
    buffer = bytearray(65536)
    try:
        length = inotify.read(buffer)
    except BlockingIOError:
        return []
    return [(event.wd, Mask(event.mask)) for event in parse(bytes(buffer[:length]))]


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_directory_hears(stage: Stage, name: str) -> None:
    operation, expected = OPERATIONS[name]
    (stage.source / "name").write_bytes(b"content")
    key, _ = stage.export.lookup(stage.export.root_key, b"name")
    with Inotify() as inotify:
        inotify.add(stage.source, IN_ALL_EVENTS)
        operation(stage.export, key)
        heard = [mask for _, mask in _heard(inotify)]
    assert len(heard) == len(set(heard))
    total = Mask(0)
    for mask in heard:
        total |= mask
    assert total == expected


def test_a_death_is_heard_at_once(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    key, _ = export.mknod(root, b"name", stat.S_IFREG | 0o600, 0, ROOT)
    directory, _ = export.mkdir(root, b"directory", 0o700, ROOT)
    with Inotify() as inotify:
        inotify.add(stage.source / "name", IN_ALL_EVENTS)
        inotify.add(stage.source / "directory", IN_ALL_EVENTS)
        export.setattr(key, None, SetAttr(mode=0o644), ROOT)
        export.mkdir(directory, b"below", 0o700, ROOT)
        export.rmdir(directory, b"below")
        assert len(_heard(inotify)) == 3
        export.unlink(root, b"name")
        assert [mask for _, mask in _heard(inotify)] == [
            Mask.ATTRIB,
            Mask.DELETE_SELF,
            Mask.IGNORED,
        ]
        export.rmdir(root, b"directory")
        assert [mask & ~Mask.ISDIR for _, mask in _heard(inotify)] == [
            Mask.DELETE_SELF,
            Mask.IGNORED,
        ]


@pytest.mark.parametrize("change", ["mode", "size", "mtime", "setxattr", "open"])
def test_the_name_that_is_meant_is_told(stage: Stage, change: str) -> None:
    """A node has two names, and the kernel would take any."""
    export, root = stage.export, stage.export.root_key
    places = []
    for name in (b"a", b"b"):
        directory, _ = export.mkdir(root, name, 0o755, ROOT)
        places.append(Place(directory, b"name"))
    key, _ = export.mknod(*places[0], 0o644, 0, ROOT)
    export.setattr(key, None, SetAttr(size=9), ROOT)
    export.link(key, *places[1])

    def act(place: Place) -> None:
        if change == "open":
            os.close(export.open(key, os.O_RDONLY, place=place))
        elif change == "setxattr":
            export.setxattr(key, b"user.x", b"", 0, ROOT, place=place)
            export.removexattr(key, b"user.x", place=place)
        else:
            changes = {
                "mode": SetAttr(mode=1),
                "size": SetAttr(size=1),
                "mtime": SetAttr(mtime_ns=1),
            }
            export.setattr(key, None, changes[change], ROOT, place=place)

    before = open_descriptors()
    for directory, place in zip((b"a", b"b"), places, strict=True):
        for watched in (b"a", b"b"):
            with Inotify() as inotify:
                inotify.add(os.fsencode(stage.source) + b"/" + watched, IN_ALL_EVENTS)
                act(place)
                assert bool(_heard(inotify)) == (watched == directory)
    # A name that the node has no more is no reason to fail.
    act(Place(places[0].directory, b"gone"))
    act(Place(places[0].directory, b".."))
    export.mknod(root, b"other", 0o644, 0, ROOT)
    act(Place(root, b"other"))
    assert open_descriptors() == before
