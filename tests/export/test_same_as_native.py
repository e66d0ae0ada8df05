"""Random histories through Export and by plain system calls: nobody can tell them apart."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.events import Key
from farwatch.export.tree import NOW, OMIT, Caller, Export, SetAttr
from farwatch.linux.files import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.export.exporting import ROOT, USER, Stage
from tests.export.native import Native, Path

pytestmark = pytest.mark.root

_counter = itertools.count()
_LATER = 1_700_000_000_123_456_789

names = st.sampled_from([b"a", b"b", b"c"])
directories = st.sampled_from([(), (), (b"a",), (b"b",), (b"a", b"b"), (b"b", b"c")])
nodes = st.tuples(directories, names).map(lambda pair: (*pair[0], pair[1]))
callers = st.sampled_from([ROOT, USER, Caller(1000, 2000, 1), Caller(0, 2000, 1)])
modes = st.sampled_from([0o644, 0o600, 0o4755, 0o2755, 0o6711, 0o2644, 0o0, 0o1666])
directory_modes = st.sampled_from([0o777, 0o2777])
ids = st.sampled_from([None, 0, 1000, 2000])
times = st.sampled_from([OMIT, NOW, 0, -1, _LATER])


class Operation(NamedTuple):
    """A method's name and what it is given; nodes are paths."""

    method: str
    arguments: tuple[Any, ...]


def _operation(method: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(*arguments).map(lambda given: Operation(method, given))


special = st.sampled_from(
    [
        (stat.S_IFREG | 0o640, 0),
        (0o2755, 0),
        (stat.S_IFIFO | 0o666, 0),
        (stat.S_IFSOCK | 0o2711, 0),
        (stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        (stat.S_IFBLK | 0o600, os.makedev(259, 300)),
        (stat.S_IFDIR | 0o755, 0),
        (stat.S_IFLNK | 0o777, 0),
    ]
)
changes = st.builds(
    SetAttr,
    mode=st.none() | modes,
    uid=ids,
    gid=ids,
    size=st.none() | st.sampled_from([0, 3, 5000]),
    atime_ns=times,
    mtime_ns=times,
    kill_suidgid=st.just(False),
)
operations = st.one_of(
    _operation("mkdir", directories, names, directory_modes, callers),
    _operation("mkdir", directories, names, directory_modes, callers),
    _operation("mknod", directories, names, special, callers),
    _operation(
        "symlink", directories, names, st.sampled_from([b"a", b"/etc", b"..", b"", b"x" * 4096]),
        callers,
    ),
    _operation(
        "create", directories, names, modes,
        st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_EXCL, os.O_WRONLY | os.O_TRUNC]),
        st.sampled_from([b"", b"content"]), callers,
    ),
    _operation("link", nodes, directories, names),
    _operation("unlink", directories, names),
    _operation("rmdir", directories, names),
    _operation(
        "rename", directories, names, directories, names,
        st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, 64]),
    ),
    _operation("readlink", nodes),
    _operation("getattr", nodes),
    _operation("setattr", nodes, changes),
    _operation("setattr", nodes, changes),
    _operation(
        "setxattr", nodes, st.sampled_from([b"user.x", b"trusted.y", b"nowhere.z"]),
        st.sampled_from([b"", b"value"]),
        st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]),
    ),
    _operation("removexattr", nodes, st.sampled_from([b"user.x", b"trusted.y"])),
)  # fmt: skip


class Exported:
    """Native's methods, over an Export: finds keys for paths, name by name."""

    def __init__(self, export: Export, base: Key) -> None:
        self._export = export
        self._base = base

    def _key(self, path: Path) -> Key:
        key = self._base
        for name in path:
            key, _ = self._export.lookup(key, name)
        return key

    def _directory(self, path: Path) -> Key:
        key = self._key(path)
        if not stat.S_ISDIR(self._export.getattr(key).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "")  # before anything else is looked at
        return key

    def getattr(self, node: Path) -> os.stat_result:
        return self._export.getattr(self._key(node))

    def mknod(
        self, directory: Path, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> os.stat_result:
        return self._export.mknod(self._directory(directory), name, mode, rdev, caller)[1]

    def mkdir(self, directory: Path, name: bytes, mode: int, caller: Caller) -> os.stat_result:
        return self._export.mkdir(self._directory(directory), name, mode, caller)[1]

    def symlink(
        self, directory: Path, name: bytes, target: bytes, caller: Caller
    ) -> os.stat_result:
        return self._export.symlink(self._directory(directory), name, target, caller)[1]

    def create(
        self, directory: Path, name: bytes, mode: int, flags: int, content: bytes, caller: Caller
    ) -> os.stat_result:
        export = self._export
        key, _, fd = export.create(self._directory(directory), name, mode, flags, caller)
        try:
            export.write_from(fd, [memoryview(content)], 0)
            assert export.getattr(key) == export.getattr_open(fd)
            return export.getattr_open(fd)
        finally:
            os.close(fd)

    def link(self, node: Path, directory: Path, name: bytes) -> os.stat_result:
        return self._export.link(self._key(node), self._directory(directory), name)[1]

    def unlink(self, directory: Path, name: bytes) -> None:
        self._export.unlink(self._directory(directory), name)

    def rmdir(self, directory: Path, name: bytes) -> None:
        self._export.rmdir(self._directory(directory), name)

    def rename(
        self, old_directory: Path, old: bytes, new_directory: Path, new: bytes, flags: int
    ) -> None:
        self._export.rename(
            self._directory(old_directory), old, self._directory(new_directory), new, flags
        )

    def readlink(self, node: Path) -> bytes:
        return self._export.readlink(self._key(node))

    def setattr(self, node: Path, changed: SetAttr) -> os.stat_result:
        return self._export.setattr(self._key(node), None, changed, ROOT)

    def setxattr(self, node: Path, name: bytes, value: bytes, flags: int) -> None:
        self._export.setxattr(self._key(node), name, value, flags, ROOT)

    def removexattr(self, node: Path, name: bytes) -> None:
        self._export.removexattr(self._key(node), name)


def _sendable(native: Native, operation: Operation) -> Operation | None:
    """The operation as a client's kernel would let it through, None if never."""
    method, given = operation
    if method == "mknod":
        directory, name, (mode, rdev), caller = given
        if caller.uid and stat.S_IFMT(mode) in {stat.S_IFCHR, stat.S_IFBLK}:
            caller = ROOT
        return Operation(method, (directory, name, mode, rdev, caller))
    if method == "create":
        return _sendable_create(native, operation)
    if method == "setattr":
        return _sendable_change(native, operation)
    return operation


def _kind(native: Native, node: Path) -> int:
    try:
        return stat.S_IFMT(native.getattr(node).st_mode)
    except OSError:
        return 0


def _sendable_create(native: Native, operation: Operation) -> Operation | None:
    directory, name, mode, flags, content, caller = operation.arguments
    if caller.uid:
        flags |= os.O_EXCL  # whether a user may open what is there is the client's question
    if not flags & os.O_EXCL and _kind(native, (*directory, name)) not in {0, stat.S_IFREG}:
        return None
    return Operation("create", (directory, name, mode, flags, content, caller))


def _sendable_change(native: Native, operation: Operation) -> Operation:
    node, changed = operation.arguments
    kind = _kind(native, node)
    if kind == stat.S_IFLNK:  # it has been followed
        changed = changed._replace(mode=None, size=None)
    if kind == stat.S_IFDIR and changed.mode is not None:  # users are to make files in it
        changed = changed._replace(mode=0o777 | changed.mode & stat.S_ISGID)
    return Operation("setattr", (node, changed))


def _outcome(method: Callable[..., Any], arguments: tuple[Any, ...]) -> object:
    try:
        result = method(*arguments)
    except OSError as error:
        return ("errno", error.errno)
    return _seen(result) if isinstance(result, os.stat_result) else result


def _seen(status: os.stat_result) -> tuple[int, ...]:
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, size, status.st_rdev)


def _tree(base: bytes) -> dict[bytes, object]:
    """All that can be seen below a directory, hard links included."""
    found: dict[bytes, object] = {}
    first: dict[int, bytes] = {}
    pending = [base]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        relative = path[len(base) :]
        found[relative] = (
            _seen(status),
            first.setdefault(status.st_ino, relative),
            os.readlink(path) if stat.S_ISLNK(status.st_mode) else None,
            _content(path) if stat.S_ISREG(status.st_mode) else None,
            [
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in sorted(os.listxattr(path, follow_symlinks=False))
            ],
            status.st_mtime_ns if status.st_mtime_ns in {0, -1, _LATER} else None,
        )
        if stat.S_ISDIR(status.st_mode):
            pending.extend(os.path.join(path, name) for name in sorted(os.listdir(path)))
    return found


def _content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _furnish(base: FilePath) -> None:
    """Something of every kind, so that few operations meet nothing."""
    base.mkdir()
    os.chown(base, 0, 2000)
    base.chmod(0o2777)
    (base / "a").mkdir(mode=0o777)
    (base / "a" / "b").mkdir(mode=0o777)
    (base / "a" / "a").write_bytes(b"content")
    (base / "a" / "a").chmod(0o6755)
    (base / "a" / "c").symlink_to("a")
    (base / "b").mkdir(mode=0o777)
    os.chown(base / "b", 0, 0)
    (base / "b").chmod(0o777)
    (base / "b" / "a").hardlink_to(base / "a" / "a")
    os.mkfifo(base / "b" / "b", 0o644)
    (base / "c").write_bytes(b"")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=st.lists(operations, min_size=8, max_size=30))
def test_results_and_trees_are_equal(stage: Stage, history: list[Operation]) -> None:
    name = f"{next(_counter)}"
    ours, theirs = stage.source / name, stage.outside / name
    for base in (ours, theirs):
        _furnish(base)
    native = Native(os.fsencode(theirs))
    base_key, _ = stage.export.lookup(stage.export.root_key, name.encode())
    through = Exported(stage.export, base_key)
    try:
        for operation in history:
            sent = _sendable(native, operation)
            if sent is None:
                continue
            method, arguments = sent
            assert _outcome(getattr(through, method), arguments) == _outcome(
                getattr(native, method), arguments
            ), sent
        assert _tree(os.fsencode(ours)) == _tree(os.fsencode(theirs))
    finally:
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
