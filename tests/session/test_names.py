"""Requests about names, through the bytes."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable

import pytest

from tests.session.kernel import (
    GENERATION,
    HIDDEN,
    LINK,
    LOOKUP,
    ROOT,
    SYMLINK,
    Entry,
    Kernel,
    Refused,
)

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


# LOOKUP -------------------------------------------------------------------------------


def test_lookup_tells_the_node_and_its_attributes(kernel: Kernel) -> None:
    inode = kernel.disk.do_file("f", b"12345", 0o640)
    entry = kernel.lookup("f")
    assert entry.node >= 16
    assert entry.generation == GENERATION
    assert (entry.entry_valid, entry.attr_valid) == (1, 1)
    told = entry.attributes
    assert (told.ino, told.size, told.mode, told.nlink) == (inode.ino, 5, 0o100640, 1)
    assert (told.uid, told.gid, told.blksize) == (0, 0, 4096)
    assert told.mtimensec == inode.times[1]


def test_a_node_keeps_its_id_under_every_name(kernel: Kernel) -> None:
    kernel.disk.do_mkdir("d")
    kernel.disk.do_file("f")
    kernel.disk.do_link("f", "d/g")
    assert kernel.lookup("f").node == kernel.walk("d/g").node == kernel.lookup("f").node


def test_nodes_are_never_given_the_id_of_another(kernel: Kernel) -> None:
    seen = set()
    for _ in range(50):
        kernel.disk.do_file("f")
        entry = kernel.lookup("f")
        assert entry.node not in seen
        seen.add(entry.node)
        kernel.disk.do_close(kernel.disk.do_remove("f"))
        kernel.forget(entry.node, 1)


def test_lookup_of_nothing(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup("f")


def test_lookup_in_a_file(kernel: Kernel) -> None:
    kernel.disk.do_file("f")
    with pytest.raises(Refused, match="ENOTDIR"):
        kernel.lookup("g", kernel.lookup("f").node)


def test_lookup_of_dot_and_dotdot(kernel: Kernel) -> None:
    """How the kernel opens a handle whose dentry is gone."""
    kernel.disk.do_mkdir("d")
    kernel.disk.do_mkdir("d/e")
    kernel.disk.do_file("d/f")
    d, e, f = (kernel.walk(path).node for path in ("d", "d/e", "d/f"))
    assert kernel.lookup(".", e).node == e
    assert kernel.lookup(".", f).node == f
    assert kernel.lookup("..", e).node == d
    assert kernel.lookup("..", d).node == ROOT
    assert kernel.lookup(".", ROOT).node == ROOT
    root = kernel.lookup("..", ROOT)
    assert (root.node, root.generation) == (ROOT, 0)
    with pytest.raises(Refused, match="ENOTDIR"):
        kernel.lookup("..", f)


def test_lookup_of_dotdot_does_not_take_the_parent_for_told(kernel: Kernel) -> None:
    kernel.disk.do_mkdir("d")
    kernel.disk.do_mkdir("d/e")
    e = kernel.walk("d/e").node
    kernel.disk.do_mkdir("new")
    kernel.disk.do_rename("d/e", "new/e")
    assert kernel.lookup("..", e).node not in (e, ROOT)


def test_the_hidden_directory_is_hidden(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup(HIDDEN)
    with pytest.raises(Refused, match="ESTALE"):
        kernel.lookup("n16", 2)
    assert HIDDEN not in kernel.list()


# Making -------------------------------------------------------------------------------


def test_mkdir(kernel: Kernel) -> None:
    entry = kernel.mkdir("d", 0o750, uid=1000, gid=100)
    assert (entry.attributes.mode, entry.attributes.nlink) == (0o40750, 2)
    inode = kernel.disk.at("d")
    assert (inode.uid, inode.gid) == (1000, 100)
    assert kernel.lookup("d").node == entry.node


@pytest.mark.parametrize(
    "mode",
    [0o100644, 0o010600, 0o140777, 0o020644, 0o060600],
    ids=oct,
)
def test_mknod(kernel: Kernel, mode: int) -> None:
    # 7:300 as new_encode_dev of kdev_t.h has it: 12 bits of the minor above 20.
    device = 44 | 7 << 8 | 1 << 20 if mode & 0o020000 and not mode & 0o100000 else 0
    entry = kernel.mknod("n", mode, rdev=device, uid=5, gid=6)
    assert entry.attributes.mode == mode
    assert entry.attributes.rdev == device
    assert kernel.disk.at("n").rdev == (os.makedev(7, 300) if device else 0)
    assert (entry.attributes.uid, entry.attributes.gid) == (5, 6)


@pytest.mark.parametrize(
    ("major", "minor"), [(0, 1), (1, 3), (7, 255), (7, 256), (4095, 0xFFFFF), (8, 0xABCDE)]
)
def test_device_numbers_there_and_back(kernel: Kernel, major: int, minor: int) -> None:
    encoded = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    entry = kernel.mknod("n", 0o020600, rdev=encoded & 0xFFFFFFFF)
    assert kernel.disk.at("n").rdev == os.makedev(major, minor)
    assert entry.attributes.rdev == encoded & 0xFFFFFFFF


def test_symlink_and_readlink(kernel: Kernel) -> None:
    entry = kernel.symlink("l", b"../any/where", uid=7)
    assert stat.S_ISLNK(entry.attributes.mode)
    assert kernel.ask(5, entry.node) == b"../any/where"
    assert kernel.disk.at("l").uid == 7
    with pytest.raises(Refused, match="EINVAL"):
        kernel.ask(5, ROOT)


def test_link(kernel: Kernel) -> None:
    kernel.disk.do_mkdir("d")
    first = kernel.mknod("f")
    second = kernel.link(first.node, "g", kernel.lookup("d").node)
    assert second.node == first.node
    assert second.attributes.nlink == 2
    assert kernel.disk.at("d/g") is kernel.disk.at("f")


def test_create_opens(kernel: Kernel) -> None:
    entry, opened = kernel.create("f", mode=0o100600, uid=9)
    assert entry.attributes.mode == 0o100600
    assert kernel.write(entry.node, opened.fh, b"abc") == 3
    assert kernel.disk.at("f").content() == b"abc"
    kernel.release(entry.node, opened.fh)


def test_create_of_what_is_there(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"old")
    with pytest.raises(Refused, match="EEXIST"):
        kernel.create("f", os.O_RDWR | os.O_EXCL)
    # The client's kernel would raise CREATE: it is to look again, and to open what is there.
    with pytest.raises(Refused, match="ESTALE"):
        kernel.create("f")
    assert kernel.disk.at("f").content() == b"old"


def test_create_of_what_is_there_is_told_to_look_again_but_once(kernel: Kernel) -> None:
    kernel.disk.do_file("f", b"old")
    for _ in range(2):
        with pytest.raises(Refused, match="ESTALE"):
            kernel.create("f", pid=41)
        with pytest.raises(Refused, match="ESTALE"):
            kernel.create("f", pid=42)
        entry, opened = kernel.create("f", pid=41)
        assert kernel.read(entry.node, opened.fh) == b"old"
        kernel.release(entry.node, opened.fh)
        entry, opened = kernel.create("f", pid=42)
        kernel.release(entry.node, opened.fh)


def test_tmpfile_has_no_link_until_it_is_linked(kernel: Kernel) -> None:
    entry, opened = kernel.tmpfile(uid=3)
    assert entry.attributes.nlink == 0
    assert kernel.getattr(entry.node).nlink == 0
    kernel.write(entry.node, opened.fh, b"x")
    assert kernel.link(entry.node, "f").attributes.nlink == 1
    assert kernel.getattr(entry.node).nlink == 1
    kernel.release(entry.node, opened.fh)
    assert kernel.disk.at("f").content() == b"x"


# Unmaking -----------------------------------------------------------------------------


def test_unlink_and_rmdir(kernel: Kernel) -> None:
    kernel.mknod("f")
    d = kernel.mkdir("d").node
    kernel.mknod("g", directory=d)
    with pytest.raises(Refused, match="EISDIR"):
        kernel.unlink("d")
    with pytest.raises(Refused, match="ENOTDIR"):
        kernel.rmdir("f")
    with pytest.raises(Refused, match="ENOTEMPTY"):
        kernel.rmdir("d")
    kernel.unlink("g", d)
    kernel.rmdir("d")
    kernel.unlink("f")
    assert list(kernel.disk.walk()) == []
    with pytest.raises(Refused, match="ENOENT"):
        kernel.unlink("f")


def test_the_client_s_own_last_unlink_leaves_a_dead_node(kernel: Kernel) -> None:
    entry, opened = kernel.create("f")
    kernel.unlink("f")
    # Held open: GETATTR answers, with no link.
    assert kernel.getattr(entry.node, opened.fh).nlink == 0
    assert kernel.getattr(entry.node).nlink == 0
    kernel.release(entry.node, opened.fh)
    kernel.disk.do_close(kernel.disk._inodes[_key(kernel, entry)])
    assert kernel.getattr(entry.node).nlink == 0


def _key(kernel: Kernel, entry: Entry) -> bytes:
    return kernel.session.view.nodes.by_id[entry.node].key


def test_rename(kernel: Kernel) -> None:
    entry = kernel.mknod("f")
    d = kernel.mkdir("d").node
    kernel.rename("f", "g")
    kernel.rename("g", "h", new_directory=d)
    assert kernel.lookup("h", d).node == entry.node
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup("g")


def test_rename_over(kernel: Kernel) -> None:
    one, two = kernel.mknod("one"), kernel.mknod("two")
    kernel.rename("one", "two")
    assert kernel.lookup("two").node == one.node
    assert kernel.getattr(two.node).nlink == 0


def test_rename_flags(kernel: Kernel) -> None:
    one, two = kernel.mknod("one"), kernel.mkdir("two")
    with pytest.raises(Refused, match="EEXIST"):
        kernel.rename("one", "two", flags=NOREPLACE)
    kernel.rename("one", "two", flags=EXCHANGE)
    assert (kernel.lookup("one").node, kernel.lookup("two").node) == (two.node, one.node)
    with pytest.raises(Refused, match="EINVAL"):
        kernel.rename("one", "two", flags=EXCHANGE | NOREPLACE)
    with pytest.raises(Refused, match="EINVAL"):
        kernel.rename("one", "two", flags=64)
    kernel.rename("two", "three", flags=WHITEOUT)
    assert kernel.lookup("two").attributes.mode == stat.S_IFCHR


def test_rename_between_links_of_one_inode_does_nothing(kernel: Kernel) -> None:
    f = kernel.mknod("f")
    kernel.link(f.node, "g")
    kernel.rename("f", "g")
    assert kernel.lookup("f").node == kernel.lookup("g").node == f.node
    assert kernel.getattr(f.node).nlink == 2
    kernel.unlink("f")
    assert kernel.getattr(f.node).nlink == 1


def test_rename_of_a_directory_into_itself(kernel: Kernel) -> None:
    d = kernel.mkdir("d").node
    with pytest.raises(Refused, match="EINVAL"):
        kernel.rename("d", "e", new_directory=d)


# The client acts on what it has cached --------------------------------------------------


@pytest.mark.parametrize("what", ["unlink", "rmdir", "rename", "rename over"])
def test_what_the_client_believes_must_be_so(kernel: Kernel, what: str) -> None:
    """ESTALE makes the VFS look again; the remote side's new node is not removed."""
    if what == "rmdir":
        kernel.disk.do_mkdir("x")
    else:
        kernel.disk.do_file("x")
    kernel.lookup("x")
    kernel.disk.do_remove("x")
    if what == "rmdir":
        kernel.disk.do_mkdir("x")
    else:
        kernel.disk.do_file("x", b"new")
    kernel.disk.do_file("y")
    act: Callable[[], object] = {
        "unlink": lambda: kernel.unlink("x"),
        "rmdir": lambda: kernel.rmdir("x"),
        "rename": lambda: kernel.rename("x", "z"),
        "rename over": lambda: kernel.rename("y", "x"),
    }[what]
    before = kernel.disk.snapshot()
    with pytest.raises(Refused, match="ESTALE"):
        act()
    assert kernel.disk.snapshot() == before
    # The VFS asks again (LOOKUP_REVAL), and then means what is there now.
    kernel.lookup("x")
    act()
    assert kernel.disk.snapshot() != before


# Names that are none --------------------------------------------------------------------

BAD = {
    b"": "EINVAL", b".": "EINVAL", b"..": "EINVAL", b"a/b": "EINVAL", b"/": "EINVAL",
    b"../x": "EINVAL", b"a\0b": "EINVAL", b"x" * 1025: "ENAMETOOLONG", b"x" * 256: "ENAMETOOLONG",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(
    "request_",
    [
        "lookup",
        "mknod",
        "mkdir",
        "symlink",
        "link",
        "create",
        "unlink",
        "rmdir",
        "rename_from",
        "rename_to",
    ],
)
def test_names_that_are_none(kernel: Kernel, request_: str, name: bytes) -> None:
    kernel.disk.do_file("f")
    kernel.disk.do_mkdir("d")
    node = kernel.lookup("f").node
    if request_ == "lookup" and name in (b".", b".."):
        return  # these are handles being opened: test_lookup_of_dot_and_dotdot
    before = kernel.disk.snapshot()
    act: Callable[[], object] = {
        "lookup": lambda: kernel.lookup(name),
        "mknod": lambda: kernel.mknod(name),
        "mkdir": lambda: kernel.mkdir(name),
        "symlink": lambda: kernel.symlink(name, b"t"),
        "link": lambda: kernel.link(node, name),
        "create": lambda: kernel.create(name),
        "unlink": lambda: kernel.unlink(name),
        "rmdir": lambda: kernel.rmdir(name),
        "rename_from": lambda: kernel.rename(name, "g"),
        "rename_to": lambda: kernel.rename("f", name),
    }[request_]
    with pytest.raises(Refused, match=BAD[name]):
        act()
    assert kernel.disk.snapshot() == before


@pytest.mark.parametrize("body", [b"", b"name", b"a\0b\0", b"a\0\0", b"\0\0"])
def test_a_name_ends_once(kernel: Kernel, body: bytes) -> None:
    kernel.disk.do_file("a")
    with pytest.raises(Refused, match="EINVAL"):
        kernel.ask(LOOKUP, ROOT, body)


@pytest.mark.parametrize("body", [b"a\0", b"a\0b", b"a\0b\0c\0", b"\0b\0"])
def test_a_symlink_has_two_names(kernel: Kernel, body: bytes) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        kernel.ask(SYMLINK, ROOT, body)
    assert list(kernel.disk.walk()) == []


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\n", b" ", b"-", b"x" * 255, b"...", b"a\\b"])
def test_odd_names_are_names(kernel: Kernel, name: bytes) -> None:
    entry = kernel.mknod(name)
    assert kernel.lookup(name).node == entry.node
    assert name in kernel.list()


def in_directory(kernel: Kernel, node: int, file: int) -> list[Callable[[], object]]:
    """Each operation on a name, in a directory."""
    return [
        lambda: kernel.lookup("x", node),
        lambda: kernel.mknod("x", directory=node),
        lambda: kernel.mkdir("x", directory=node),
        lambda: kernel.symlink("x", b"target", node),
        lambda: kernel.link(file, "x", node),
        lambda: kernel.create("x", directory=node),
        lambda: kernel.tmpfile(node),
        lambda: kernel.unlink("x", node),
        lambda: kernel.rmdir("x", node),
        lambda: kernel.rename("x", "y", node),
        lambda: kernel.rename("f", "x", ROOT, node),
        lambda: kernel.rename("x", "g", node, ROOT),
        lambda: kernel.rename("f", "x", ROOT, node, NOREPLACE),
    ]


def test_a_removed_directory_has_no_names(kernel: Kernel) -> None:
    """As on a local disk, for whoever is still in it."""
    directory, file = kernel.mkdir("d").node, kernel.mknod("f").node
    kernel.rmdir("d")
    for act in in_directory(kernel, directory, file):
        with pytest.raises(Refused, match="ENOENT"):
            act()
    with pytest.raises(Refused, match="ESTALE"):
        kernel.rename("f", "x", directory, 999)
    assert kernel.lookup("f").node == file


def test_a_directory_whose_removal_is_not_told_yet(kernel: Kernel) -> None:
    """ESTALE makes the VFS walk again: there may be another directory at the name."""
    directory, file = kernel.mkdir("d").node, kernel.mknod("f").node
    kernel.disk.do_remove("d")
    for act in in_directory(kernel, directory, file):
        with pytest.raises(Refused, match="ESTALE"):
            act()


@pytest.mark.parametrize("node", [0, 2, 3, 15, 999, (1 << 64) - 1])
def test_unknown_nodes(kernel: Kernel, node: int) -> None:
    kernel.mknod("f")
    acts: list[Callable[[], object]] = [
        lambda: kernel.lookup("f", node),
        lambda: kernel.mkdir("x", directory=node),
        lambda: kernel.unlink("f", node),
        lambda: kernel.rename("f", "g", new_directory=node),
        lambda: kernel.ask(LINK, ROOT, struct.pack("<Q", node) + b"x\0"),
    ]
    for act in acts:
        with pytest.raises(Refused, match="ESTALE"):
            act()
