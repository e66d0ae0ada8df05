"""Where farwatch's answer is meant to be another one than the C virtiofsd's, and why.

A difference that is not listed here fails the test, and so does one that is not found.
Of two answers that are dictionaries it has what is not the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from tests.session import kernel as k
from tests.virtiofsd_peers.guest import Answer, Step


class Difference(NamedTuple):
    """One step of a case, and the two answers; the step ("the tree",) is what is left."""

    step: Step
    c: Answer
    farwatch: Answer


UNKNOWN = "#77777"
RDONLY, RDWR = os.O_RDONLY, os.O_RDWR
TREE: Step = ("the tree",)


def each(c: Answer, farwatch: Answer, *steps: Step) -> Iterator[Difference]:
    """Steps that differ in the same way."""
    for step in steps:
        yield Difference(step, c, farwatch)


FILE = ("-rw-r--r--", (0, 0, 1, 0), b"")

DIFFERENCES: dict[str, list[Difference]] = {
    # An empty name: no kernel sends it.  The C virtiofsd asks the disk, which says ENOENT.
    "names that are none": [
        *each(
            "ENOENT",
            "EINVAL",
            ("mknod", "/dir", "", 0o100600),
            ("mkdir", "/dir", ""),
            ("symlink", "/dir", "", b"x"),
            ("create", "/dir", "", RDWR, 0o600, "h"),
            ("unlink", "/dir", ""),
            ("rmdir", "/dir", ""),
            ("lookup", "/dir", ""),
        )
    ],
    # Looked up by name, the C virtiofsd's root is another node than its node 1.
    "dots": [
        *each(
            {"node": "/."},
            {"node": "/"},
            ("lookup", "/", "."),
            ("lookup", "/", ".."),
            ("lookup", "/dir", ".."),
        )
    ],
    "kinds": [
        # A kernel sends MKDIR for it.  mknod(2) says EPERM; the C virtiofsd makes one.
        Difference(
            ("mknod", "/", "directory", 0o040755),
            {
                "node": "/directory", "inode stays": True, "mode": "0o40755", "links": 2,
                "owner": (0, 0), "device": 0, "size": None, "block": 4096,
                "atime": "now", "mtime": "now",
            },
            "EPERM",
        ),
        Difference(
            TREE,
            {"directory": ("directory", "drwxr-xr-x", (0, 0, 2, 0), None, {})},
            {"directory": None},
        ),
        # A kernel opens these by itself.  farwatch says what open(2) says of a socket.
        *each(
            "EBADF",
            "ENXIO",
            *[("open", f"/{kind}", RDONLY, "h") for kind in ("fifo", "socket")],
            *[("open", f"/{kind}", RDONLY, "h") for kind in ("character", "block")],
        ),
    ],
    # Both leave permissions to the client's kernel, which sends no such requests.  The C
    # virtiofsd acts with the caller's user id alone, so that the disk looks once more;
    # farwatch keeps root's capabilities.
    "owners": [
        Difference(
            ("mknod", "/", "not allowed", 0o100644, 0, 1000),
            "EACCES",
            {
                "node": "/not allowed", "inode stays": True, "mode": "0o100644", "links": 1,
                "owner": (1000, 1000), "device": 0, "size": 0, "block": 4096,
                "atime": "now", "mtime": "now",
            },
        ),
        Difference(
            ("mkdir", "/private", "not allowed", 0o755, 1000),
            "EACCES",
            {
                "node": "/private/not allowed", "inode stays": True, "mode": "0o40755",
                "links": 2, "owner": (1000, 1000), "device": 0, "size": None, "block": 4096,
                "atime": "now", "mtime": "now",
            },
        ),
        Difference(
            ("create", "/private", "neither", RDWR, 0o644, "h", 1000),
            "EACCES",
            (
                {
                    "node": "/private/neither", "inode stays": True, "mode": "0o100644",
                    "links": 1, "owner": (1000, 1000), "device": 0, "size": 0, "block": 4096,
                    "atime": "now", "mtime": "now",
                },
                "opened",
            ),
        ),
        Difference(
            TREE,
            {
                "not allowed": None,
                "private": ("private", "drwx------", (0, 0, 2, 0), None, {}),
                "private/neither": None,
                "private/not allowed": None,
            },
            {
                "not allowed": ("not allowed", "-rw-r--r--", (1000, 1000, 1, 0), b"", {}),
                "private": ("private", "drwx------", (0, 0, 3, 0), None, {}),
                "private/neither": ("private/neither", "-rw-r--r--", (1000, 1000, 1, 0), b"", {}),
                "private/not allowed": (
                    "private/not allowed", "drwxr-xr-x", (1000, 1000, 2, 0), None, {},
                ),
            },
        ),
    ],
    # farwatch says what readlink(2) and open(2) say; a kernel does not ask.
    "links": [
        *each("ENOENT", "EINVAL", ("readlink", "/file"), ("readlink", "/dir")),
        Difference(("open", "/outside", RDONLY, "h"), "EBADF", "ENXIO"),
    ],
    "removal": [
        # The C virtiofsd looks the name up first, and says EIO if that fails.
        *each(
            "EIO",
            "ENOENT",
            ("unlink", "/dir", "none"),
            ("rmdir", "/dir", "none"),
            ("unlink", "/dir", "file"),
        ),
        Difference(("unlink", "/dir/file", "x"), "EIO", "ENOTDIR"),
    ],
    # As in "removal".
    "renames": [
        Difference(("rename", "/b", "none", "/b", "x"), "EIO", "ENOENT"),
        Difference(("rename", "/b/other", "x", "/", "y"), "EIO", "ENOTDIR"),
    ],
    # It is the request that is wrong, not the disk.
    "content": [
        *each(
            "EIO",
            "EINVAL",
            ("write_of_size", "/file", "h", b"12345678", 4),
            ("write_of_size", "/file", "h", b"1234", 8),
        )
    ],
    # A kernel sends OPENDIR.
    "opening": [Difference(("open", "/dir", RDONLY, "h"), "opened", "EISDIR")],
    "attributes": [
        # Asked for both at once, farwatch changes the owner first.  The C virtiofsd begins
        # with the mode, of which the disk then takes the set-id bits away with the owner.
        Difference(
            ("setattr", "/both", {"mode": 0o7777, "uid": 5}),
            {"mode": "0o101777"},
            {"mode": "0o107777"},
        ),
        Difference(
            TREE,
            {"both": ("both", "-rwxrwxrwt", (5, 0, 1, 0), b"", {})},
            {"both": ("both", "-rwsrwsrwt", (5, 0, 1, 0), b"", {})},
        ),
        # farwatch says what truncate(2) says; a kernel does not ask.
        Difference(("setattr", "/link", {"size": 0}), "EBADF", "EINVAL"),
    ],
    # More than Linux has for a value (XATTR_SIZE_MAX): a kernel has refused it by itself.
    "extended attributes": [
        Difference(("setxattr", "/file", b"user.larger", bytes(65537)), "E2BIG", "EINVAL")
    ],
    # The C virtiofsd has given CAP_SYS_ADMIN up (-o modcaps=+sys_admin keeps it); farwatch
    # needs it for file handles.  The client's kernel lets only its own root at them.
    "trusted attributes": [
        *each(
            "EPERM",
            b"",
            ("setxattr", "/file", b"trusted.t", b"t"),
            ("setxattr", "/file", b"security.s", b"s"),
        ),
        Difference(("getxattr", "/file", b"trusted.t"), "ENODATA", b"t"),
        Difference(("getxattr", "/file", b"security.s"), "ENODATA", b"s"),
        Difference(("listxattr", "/file"), b"", b"trusted.t\0security.s\0"),
        Difference(
            TREE,
            {"file": ("file", *FILE, {})},
            {"file": ("file", *FILE, {"trusted.t": b"t", "security.s": b"s"})},
        ),
    ],
    # The C virtiofsd leaves set-id bits on a file that is cut short by somebody who must
    # not leave them, though it takes them away on a write.
    "set-id bits": [
        *each(
            {"mode": "0o106755"},
            {"mode": "0o100755"},
            ("setattr", "/file", {"size": 3, "kill": 1}),
            ("getattr", "/file"),
        )
    ],
    # ESTALE makes Linux look the name up again, and never means a closed file.
    "nodes that nobody knows": [
        *each(
            "EBADF",
            "ESTALE",
            ("getattr", UNKNOWN),
            ("mknod", UNKNOWN, "x", 0o100644),
            ("mkdir", UNKNOWN, "x"),
            ("readlink", UNKNOWN),
            ("open", UNKNOWN, RDONLY, "h"),
            ("opendir", UNKNOWN, "h"),
            ("setattr", UNKNOWN, {"mode": 0o600}),
            ("getxattr", UNKNOWN, b"user.x"),
            ("listxattr", UNKNOWN),
            ("setxattr", UNKNOWN, b"user.x", b"1"),
            ("create", UNKNOWN, "x", RDWR, 0o600, "h"),
            ("symlink", UNKNOWN, "x", b"y"),
            ("rename", "/", "file", UNKNOWN, "x"),
            ("link", UNKNOWN, "/", "x"),
            ("link", "/file", UNKNOWN, "x"),
        ),
        *each("EIO", "ESTALE", ("unlink", UNKNOWN, "x"), ("rmdir", UNKNOWN, "x")),
        Difference(("lookup", UNKNOWN, "x"), "ENOENT", "ESTALE"),
    ],
    "requests for which Linux has another way": [
        # The C virtiofsd does not know TMPFILE (7.37).
        Difference(
            ("tmpfile", "/", "h"),
            "ENOSYS",
            (
                {
                    "node": "/(none)", "inode stays": True, "mode": "0o100600", "links": 0,
                    "owner": (0, 0), "device": 0, "size": 0, "block": 4096,
                    "atime": "now", "mtime": "now",
                },
                "opened",
            ),
        ),
        # farwatch's agent speaks by IOCTL; for everybody else it is what a disk says.
        Difference(("raw", k.IOCTL, "/file", bytes(32)), "ENOSYS", "ENOTTY"),
    ],
}  # fmt: skip
