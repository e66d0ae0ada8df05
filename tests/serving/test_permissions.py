"""What clients may do is what the kernel lets them do: the same accesses, both ways."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.linux.files import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.serving.access import Native, Served, Who, become, outcome
from tests.serving.area import Area
from tests.serving.wire import connected
from tests.session.kernel import Refused

pytestmark = pytest.mark.root

Access = tuple[object, ...]

ME, GROUP, OTHER = 21_000, 22_000, 23_000
USERS = {
    "owner": Who(ME, ME, (ME, GROUP)),
    "of the group only": Who(24_000, GROUP, (GROUP,)),
    "somebody else": Who(25_000, 25_000, ()),
    "in many groups": Who(26_000, 26_000, tuple(range(21_900, 22_100))),
    "root": Who(0, 0, (0,)),
}
OFTEN_LIKE_ANOTHER = ("of the group only", "root")
"""Users with whom it is only tried when there is time."""
OWNERS = {"mine": (ME, ME), "ours": (OTHER, GROUP), "theirs": (OTHER, OTHER)}
FILE_MODES = (0o640, 0o060, 0o006, 0o4755)
DIRECTORY_MODES = (0o750, 0o707, 0o733, 0o1777, 0o2777)
X = 1 | 4
"""ACCESS and ATTRIB of inotify."""

ON_A_FILE: list[Access] = [
    ("open", "f", os.O_RDONLY),
    ("open", "f", os.O_WRONLY),
    ("open", "f", os.O_RDWR),
    ("open", "f", os.O_RDONLY | os.O_NOATIME),
    ("open", "f", os.O_WRONLY | os.O_TRUNC),
    ("truncate", "f"),
    ("ftruncate", "f", os.O_RDWR),
    ("ftruncate", "f", os.O_RDONLY),
    ("chmod", "f", 0o640),
    ("chmod", "f", 0o6755),
    ("chown", "f", ME, -1),
    ("chown", "f", OTHER, -1),
    ("chown", "f", -1, GROUP),
    ("chown", "f", -1, OTHER),
    ("chown", "f", ME, GROUP),
    ("utime", "f", "now"),
    ("utime", "f", "past"),
    ("getxattr", "f", "user.here"),
    ("setxattr", "f", "user.new"),
    ("removexattr", "f", "user.here"),
    ("getxattr", "f", "trusted.here"),
    ("setxattr", "f", "trusted.new"),
    ("setxattr", "f", "security.new"),
    ("removexattr", "f", "trusted.here"),
    ("listxattr", "f"),
    ("link", "f", "new"),
    ("watch", "f", X),
]
IN_A_DIRECTORY: list[Access] = [
    ("lookup", "d/f"),
    ("lookup", "d/none"),
    ("list", "d"),
    ("watch", "d", X),
    ("watch", "d/f", X),
    ("open", "d/f", os.O_RDONLY),
    ("open", "d/f", os.O_WRONLY),
    ("readlink", "d/l"),
    ("create", "d/new", 0o666),
    ("mkdir", "d/new", 0o777),
    ("mkdir", "d/new", 0o2777),
    ("symlink", "d/new"),
    ("mknod", "d/new", stat.S_IFREG | 0o666, 0),
    ("mknod", "d/new", stat.S_IFIFO | 0o666, 0),
    ("mknod", "d/new", stat.S_IFSOCK | 0o666, 0),
    ("mknod", "d/new", stat.S_IFCHR | 0o666, 0x103),
    ("link", "d/f", "d/new"),
    ("link", "f", "d/new"),
    ("unlink", "d/f"),
    ("unlink", "d/theirs"),
    ("unlink", "d/l"),
    ("unlink", "d/none"),
    ("unlink", "d/e"),
    ("rmdir", "d/e"),
    ("rmdir", "d/f"),
    ("rename", "d/f", "d/new"),
    ("rename", "d/f", "d/theirs"),
    ("rename", "d/theirs", "d/f"),
    ("rename", "d/f", "new"),
    ("rename", "f", "d/new"),
    ("rename", "d/e", "e"),
    ("rename", "d/f", "d/theirs", RENAME_EXCHANGE),
    ("rename", "d/f", "d/theirs", RENAME_NOREPLACE),
    ("chmod", "d", 0o755),
    ("setxattr", "d", "user.new"),
    ("utime", "d", "now"),
]
READ, WRITE, EXECUTE = 4, 2, 1
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
WITH_LISTS: list[Access] = [
    ("open", "granted", os.O_RDONLY),
    ("open", "granted", os.O_WRONLY),
    ("open", "denied", os.O_RDONLY),
    ("watch", "granted", X),
    ("watch", "denied", X),
    ("list", "into"),
    ("lookup", "into/f"),
    ("create", "into/new", 0o666),
    ("mkdir", "into/new", 0o777),
    ("unlink", "into/f"),
    ("setxattr", "granted", "user.new"),
    ("getxattr", "granted", ACCESS),
    ("removexattr", "granted", ACCESS),
    ("removexattr", "into", DEFAULT),
]


def acl(*entries: tuple[int, int, int]) -> bytes:
    """``struct posix_acl_xattr_header`` and entries (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def access_list(user: int, permissions: int) -> bytes:
    none = 0xFFFF_FFFF
    return acl(
        (0x01, READ | WRITE | EXECUTE, none),
        (0x02, permissions, user),
        (0x04, 0, none),
        (0x10, READ | WRITE | EXECUTE, none),
        (0x20, 0, none),
    )


def make_file(path: Path, mode: int, owner: tuple[int, int]) -> None:
    path.write_bytes(b"content")
    os.setxattr(path, "user.here", b"1")
    os.setxattr(path, "trusted.here", b"1")
    os.chown(path, *owner)
    path.chmod(mode)


def make_directory(path: Path, mode: int, owner: tuple[int, int]) -> None:
    path.mkdir()
    for name, whose in (("f", owner), ("theirs", OWNERS["theirs"])):
        make_file(path / name, 0o666, whose)
    (path / "l").symlink_to("f")
    (path / "e").mkdir()
    for name in ("l", "e"):
        os.chown(path / name, *owner, follow_symlinks=False)
    os.chown(path, *owner)
    path.chmod(mode)


def make_lists(top: Path) -> None:
    for name, permissions in (("granted", READ | WRITE), ("denied", 0)):
        make_file(top / name, 0o600, OWNERS["theirs"])
        os.setxattr(top / name, ACCESS, access_list(ME, permissions))
    make_directory(top / "into", 0o700, OWNERS["theirs"])
    everything = access_list(ME, READ | WRITE | EXECUTE)
    os.setxattr(top / "into", ACCESS, everything)
    os.setxattr(top / "into", DEFAULT, everything)


Case = tuple[str, Access]


TRIED_ON = {
    "owner": tuple(OWNERS),
    "of the group only": ("ours",),
    "somebody else": ("theirs",),
    "in many groups": ("ours",),
    "root": ("theirs",),
}
"""Whose files each of them tries: what the others would add is the same again."""


def cases(user: str) -> Iterator[tuple[Case, object]]:
    """Every access, and what it is done to."""
    for owner in TRIED_ON[user]:
        for mode in FILE_MODES:
            for access in ON_A_FILE:
                yield (f"a file of {mode:o} that is {owner}", access), ("file", mode, owner)
        for mode in DIRECTORY_MODES:
            for access in IN_A_DIRECTORY:
                yield (f"a directory of {mode:o} that is {owner}", access), ("dir", mode, owner)
    for access in WITH_LISTS:
        yield ("access control lists", access), ("lists", 0, "")


def make(top: Path, what: tuple[str, int, str]) -> None:
    kind, mode, owner = what
    top.mkdir()
    if kind == "file":
        make_file(top / "f", mode, OWNERS[owner])
    elif kind == "dir":
        make_file(top / "f", 0o666, OWNERS[owner])
        make_directory(top / "d", mode, OWNERS[owner])
    else:
        make_lists(top)
    top.chmod(0o777)


def state(top: Path) -> list[object]:
    """Everything below, but for what differs anyway."""
    found: list[object] = []
    for directory, names, files in os.walk(top):
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            xattrs = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            past = int(status.st_mtime) == 1_000_000_000
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found.append(
                (
                    os.path.relpath(path, top),
                    oct(status.st_mode),
                    (status.st_uid, status.st_gid),
                    (status.st_nlink, size, status.st_rdev),
                    past,
                    sorted(xattrs.items()),
                )
            )
    return found


def in_a_child(who: Who, address: str, native: str, accesses: list[Access]) -> list[list[str]]:
    """What both sides say, to a process that is nobody but ``who``."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            become(who)
            with connected(address) as client, os.fdopen(write, "w") as out:
                client.begin()
                said = [
                    [
                        outcome(Native(f"{native}/{number}"), access),
                        outcome(Served(client, f"served/{number}"), access),
                    ]
                    for number, access in enumerate(accesses)
                ]
                json.dump(said, out)
            status = 0
        except BaseException:  # noqa: BLE001 - the child's; its parent's test fails by it
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answers:
        text = answers.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.fixture
def area() -> Iterator[Area]:
    """Where others can go as well."""
    with tempfile.TemporaryDirectory(prefix="farwatch-test-") as home:
        os.chmod(home, 0o755)
        yield Area(Path(home))


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(user, marks=[pytest.mark.long] if user in OFTEN_LIKE_ANOTHER else [])
        for user in USERS
    ],
)
def test_the_same_answers_and_the_same_outcome_as_by_system_calls(area: Area, user: str) -> None:
    table = list(cases(user))
    native, served = area.home / "native", area.directory / "served"
    for top in (native, served):
        top.mkdir()
        top.chmod(0o755)
        for number, (_, what) in enumerate(table):
            make(top / str(number), what)  # type: ignore[arg-type]
    with area.serving("--socket-mode=0666", "--log-level=warn") as server:
        accesses = [access for (_, access), _ in table]
        answers = in_a_child(USERS[user], server.address, str(native), accesses)
    wrong = []
    for number, ((where, access), _) in enumerate(table):
        said = answers[number]
        if said[0] != said[1]:
            wrong.append(f"{access} in {where}: {said[1]}, by system call {said[0]}")
            continue
        mine, kernels = state(served / str(number)), state(native / str(number))
        if mine != kernels:
            wrong.append(f"{access} in {where}:\n{mine}, by system call\n{kernels}")
    assert not wrong, f"{len(wrong)} of {len(table)}:\n" + "\n".join(wrong[:40])
    refused = sum(not said[0].startswith("ok") for said in answers)
    assert 0 < refused < len(table)


def test_by_tcp_everybody_is_the_user_that_was_named(area: Area) -> None:
    with area.serving("--user=daemon", listen=("tcp:127.0.0.1:0",)) as server:
        with connected(server.address) as client:
            client.begin()
            client.mkdir("d", uid=0, gid=0)
            status = (area.directory / "d").stat()
            assert (status.st_uid, status.st_gid) == (1, 1)
            (area.directory / "roots").mkdir(mode=0o700)
            with pytest.raises(Refused, match="EACCES"):
                client.mkdir("d", directory=client.lookup("roots").node, uid=0)


def test_root_by_unix_socket_is_whom_it_says(area: Area) -> None:
    with area.serving() as server, connected(server.address) as client:
        client.begin()
        for uid, gid in ((ME, GROUP), (0, 0), (OTHER, OTHER), (0, ME)):
            name = f"{uid}-{gid}"
            client.mkdir(name, mode=0o700, uid=uid, gid=gid)
            status = (area.directory / name).stat()
            assert (status.st_uid, status.st_gid) == (uid, gid)
        mine = client.lookup(f"{ME}-{GROUP}").node
        client.mkdir("in", directory=mine, uid=ME, gid=ME)
        with pytest.raises(Refused, match="EACCES"):
            client.mkdir("in2", directory=mine, uid=OTHER, gid=OTHER)
        client.mkdir("in3", directory=mine, uid=0, gid=0)


def test_who_could_read_and_may_no_more_has_no_new_watch(area: Area) -> None:
    directory = area.directory / "d"
    directory.mkdir()
    with area.serving() as server, connected(server.address) as client:
        client.begin()
        node, generation = client.lookup("d", uid=ME)[:2]
        client.mark(node, 0x100, generation, uid=ME, gid=ME)
        directory.chmod(0o700)
        with pytest.raises(Refused, match="EACCES"):
            client.mark(node, 0x300, generation, uid=ME, gid=ME)
        # To give one up needs nothing.
        client.mark(node, 0, generation, uid=ME, gid=ME)


def test_a_socket_is_its_owners_alone_unless_told_otherwise(area: Area) -> None:
    for options, mode in (((), 0o700), (("--socket-mode=0666",), 0o666)):
        with area.serving(*options):
            assert stat.S_IMODE(area.socket.stat().st_mode) == mode
    with area.serving("--socket-group=daemon"):
        status = area.socket.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o770, 1)
    with socket.socket(socket.AF_UNIX) as nobody, pytest.raises(OSError, match="No such file"):
        nobody.connect(str(area.socket))
