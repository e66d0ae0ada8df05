"""What a hostile client names: nothing outside the export is reached, nothing leaks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.events import Key, Place
from farwatch.export.tree import Caller, Export, SetAttr
from tests.export.exporting import ROOT, Stage, open_descriptors

pytestmark = pytest.mark.root

Naming = Callable[[Export, Key, bytes], object]
NAMING: dict[str, Naming] = {
    "lookup": lambda export, directory, name: export.lookup(directory, name),
    "node_at": lambda export, directory, name: export.node_at(directory, name),
    "mknod": lambda export, directory, name: export.mknod(directory, name, 0o644, 0, ROOT),
    "mkdir": lambda export, directory, name: export.mkdir(directory, name, 0o755, ROOT),
    "symlink": lambda export, directory, name: export.symlink(directory, name, b"/", ROOT),
    "create": lambda export, directory, name: export.create(
        directory, name, 0o644, os.O_RDWR, ROOT
    ),
    "link": lambda export, directory, name: export.link(_file(export), directory, name),
    "unlink": lambda export, directory, name: export.unlink(directory, name),
    "rmdir": lambda export, directory, name: export.rmdir(directory, name),
    "rename from": lambda export, directory, name: export.rename(
        directory, name, export.root_key, b"x", 0
    ),
    "rename to": lambda export, directory, name: export.rename(
        export.root_key, b"file", directory, name, 0
    ),
}
BAD_NAMES = [b"", b"/", b"a/b", b"../outside", b"/etc/passwd", b"a\0b", b"\0", b"n" * 256]
Using = Callable[[Export, Key], object]
USING: dict[str, Using] = {
    "dot": lambda export, node: export.lookup(node, b"."),
    "parent": lambda export, node: export.lookup(node, b".."),
    "lookup": lambda export, node: export.lookup(node, b"name"),
    "getattr": lambda export, node: export.getattr(node),
    "setattr": lambda export, node: export.setattr(node, None, SetAttr(mode=0o777, size=0), ROOT),
    "open": lambda export, node: export.open(node, os.O_RDWR),
    "opendir": lambda export, node: export.opendir(node),
    "readlink": lambda export, node: export.readlink(node),
    "statfs": lambda export, node: export.statfs(node),
    "getxattr": lambda export, node: export.getxattr(node, b"user.x"),
    "setxattr": lambda export, node: export.setxattr(node, b"user.x", b"", 0, ROOT),
    "link": lambda export, node: export.link(node, export.root_key, b"name"),
    "mkdir": lambda export, node: export.mkdir(node, b"name", 0o777, ROOT),
    "tmpfile": lambda export, node: export.tmpfile(node, 0o600, os.O_RDWR, ROOT),
    "rename": lambda export, node: export.rename(export.root_key, b"file", node, b"name", 0),
}


def _file(export: Export) -> Key:
    return export.lookup(export.root_key, b"file")[0]


@pytest.fixture(autouse=True)
def no_leak(stage: Stage) -> Iterator[None]:
    (stage.source / "file").write_bytes(b"inside")
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.mark.parametrize("method", NAMING)
def test_no_such_name_is_passed_on(stage: Stage, method: str) -> None:
    for name in BAD_NAMES:
        expected = errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL
        with pytest.raises(OSError, match=os.strerror(expected)):
            NAMING[method](stage.export, stage.export.root_key, name)
    assert os.listdir(stage.source) == ["file"]
    assert os.listdir(stage.outside) == []


@pytest.mark.parametrize("method", sorted(NAMING.keys() - {"lookup"}))
def test_dots_are_for_lookup_only(stage: Stage, method: str) -> None:
    for name in (b".", b".."):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            NAMING[method](stage.export, stage.export.root_key, name)


@pytest.mark.parametrize("method", NAMING)
@pytest.mark.parametrize("kind", ["file", "fifo", "link"])
def test_only_a_directory_holds_names(stage: Stage, method: str, kind: str) -> None:
    os.mkfifo(stage.source / "fifo")
    (stage.source / "link").symlink_to(stage.outside)
    (stage.outside / "name").mkdir()
    key, _ = stage.export.lookup(stage.export.root_key, kind.encode())
    if method == "node_at":
        assert stage.export.node_at(key, b"name") is None
        return
    with pytest.raises(NotADirectoryError):
        NAMING[method](stage.export, key, b"name")


@pytest.mark.parametrize("method", USING)
def test_a_node_that_is_gone_is_stale(stage: Stage, method: str) -> None:
    (stage.source / "gone").mkdir()
    key, _ = stage.export.lookup(stage.export.root_key, b"gone")
    (stage.source / "gone").rmdir()
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        USING[method](stage.export, key)
    assert not stage.export.exists(key)
    assert not stage.export.inside(key)
    assert stage.export.node_at(key, b"name") is None


@pytest.mark.parametrize("method", USING)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rest=st.binary(max_size=40), whole=st.booleans())
def test_bytes_that_are_no_key(stage: Stage, method: str, rest: bytes, whole: bool) -> None:
    prefix = b"" if whole else stage.export.root_key[:8]
    either = f"{os.strerror(errno.ESTALE)}|{os.strerror(errno.EINVAL)}"
    with pytest.raises(OSError, match=either):
        USING[method](stage.export, prefix + rest)


def test_keys_of_another_file_system_are_stale(stage: Stage) -> None:
    with (
        Export(os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY)) as other,
        pytest.raises(OSError, match=os.strerror(errno.ESTALE)),
    ):
        stage.export.getattr(other.root_key)


def test_symbolic_links_are_never_followed(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    secret = stage.outside / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    for name, target in ((b"to-file", secret), (b"to-root", "/"), (b"magic", "/proc/self/cwd")):
        key, status = export.symlink(root, name, os.fsencode(target), ROOT)
        assert stat.S_ISLNK(status.st_mode)
        assert export.readlink(key) == os.fsencode(target)
        for use, number in (
            (partial(export.open, key, os.O_RDWR), errno.ELOOP),
            (partial(export.opendir, key), errno.ENOTDIR),
            (partial(export.setattr, key, None, SetAttr(mode=0o777), ROOT), errno.EOPNOTSUPP),
            (partial(export.setattr, key, None, SetAttr(size=0), ROOT), errno.EINVAL),
            (partial(export.create, root, name, 0o644, os.O_RDWR, ROOT), errno.ESTALE),
            (partial(export.setxattr, key, b"user.x", b"", 0, ROOT), errno.EPERM),
        ):
            with pytest.raises(OSError, match=os.strerror(number)):
                use()
        export.setattr(key, None, SetAttr(uid=7, gid=8, mtime_ns=9), ROOT)
        export.setxattr(key, b"trusted.x", b"its own", 0, ROOT)
        assert export.getattr(key).st_uid == 7
        assert export.listxattr(key) == [b"trusted.x"]
        linked, status = export.link(key, root, name + b"-too")
        assert linked == key
        assert status.st_nlink == 2
    status = secret.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime_ns == 9) == (0o600, 0, False)
    assert secret.read_bytes() == b"secret"
    assert os.listxattr(secret) == []


def test_the_way_up_ends_at_the_root(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    assert export.lookup(root, b"..") == (root, export.root())
    assert export.lookup(root, b".") == (root, export.root())
    middle, _ = export.mkdir(root, b"a", 0o755, ROOT)
    deep, _ = export.mkdir(middle, b"b", 0o755, ROOT)
    assert export.lookup(deep, b"..")[0] == middle
    assert export.lookup(middle, b"..")[0] == root
    assert export.lookup(deep, b".")[0] == deep
    file = _file(export)
    assert export.lookup(file, b".")[0] == file
    with pytest.raises(NotADirectoryError):
        export.lookup(file, b"..")
    with pytest.raises(NotADirectoryError):
        export.inside(file)


def test_where_a_directory_is_whose_path_is_too_long_to_be_told(stage: Stage) -> None:
    export = stage.export
    above = key = export.root_key
    name = b""
    for number in range(20):
        above, name = key, b"%03d" % number + b"n" * 250
        key, _ = export.mkdir(above, name, 0o755, ROOT)
        assert export.place_of(key) == Place(above, name)
    export.rmdir(above, name)
    assert export.place_of(key) is None


def test_a_directory_that_left_the_export(stage: Stage) -> None:
    export, root = stage.export, stage.export.root_key
    moved, _ = export.mkdir(root, b"a", 0o755, ROOT)
    below, _ = export.mkdir(moved, b"b", 0o755, ROOT)
    assert export.inside(root)
    assert export.inside(moved)
    assert export.inside(below)
    (stage.source / "a").rename(stage.outside / "a")
    assert export.exists(below)
    for key in (moved, below):
        assert not export.inside(key)
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            export.lookup(key, b"..")
    (stage.outside / "a").rename(stage.source / "back")
    assert export.inside(below)


def test_also_without_a_mount_of_its_own(stage: Stage) -> None:
    """On a bind mount the kernel refuses to go up outside of it; here nobody else does."""
    with Export(os.open(stage.source, os.O_RDONLY | os.O_DIRECTORY)) as export:
        moved, _ = export.mkdir(export.root_key, b"a", 0o755, ROOT)
        below, _ = export.mkdir(moved, b"b", 0o755, ROOT)
        assert export.lookup(below, b"..")[0] == moved
        assert export.lookup(moved, b"..")[0] == export.root_key
        (stage.source / "a").rename(stage.outside / "a")
        assert not export.inside(below)
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            export.lookup(below, b"..")


@pytest.mark.parametrize("caller", [Caller(0xFFFFFFFF, 0, 1), Caller(5, 0xFFFFFFFF, 1)])
def test_nobody_is_not_root(stage: Stage, caller: Caller) -> None:
    export, root = stage.export, stage.export.root_key
    for make in (
        lambda: export.mkdir(root, b"x", 0o755, caller),
        lambda: export.mknod(root, b"x", 0o644, 0, caller),
        lambda: export.symlink(root, b"x", b"x", caller),
        lambda: export.create(root, b"x", 0o644, os.O_RDWR, caller),
        lambda: export.tmpfile(root, 0o644, os.O_RDWR, caller),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            make()
    for ids in (SetAttr(uid=0xFFFFFFFF), SetAttr(gid=0xFFFFFFFF), SetAttr(size=1 << 63)):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            export.setattr(_file(export), None, ids, ROOT)


@pytest.mark.parametrize("use", ["getattr", "lookup", "open", "opendir", "statfs"])
def test_a_mount_that_goes_at_this_moment_is_stale(stage: Stage, use: str) -> None:
    """Its descriptor's number stays taken, and leads nowhere (Submounts._retire)."""
    export, nowhere = stage.export, os.open("/", os.O_PATH)
    prefix = b"a0000001"
    export._fds[prefix] = nowhere
    try:
        with pytest.raises(OSError, check=lambda e: e.errno == errno.ESTALE):
            USING[use](export, prefix + export.root_key[len(prefix) :])
    finally:
        del export._fds[prefix]
        os.close(nowhere)
