"""What random sequences meet too seldom, each by itself."""

from __future__ import annotations

import os

from farwatch.events import Mask
from farwatch.linux.inotify import (
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
)
from tests.client.fsnotify.both import Operation

ALL = 0xFFF
MAKE = os.O_CREAT | os.O_RDWR


def _made(path: bytes) -> list[Operation]:
    return [("open", 0, path, MAKE), ("close", 0)]


_DONE: list[Operation] = [
    ("through", 1, "write"),
    ("through", 1, "read"),
    ("through", 1, "fchmod"),
    ("close", 1),
]
_CUT = "an unlinked child is cut off through its descriptor"
CHANGED_WHEN_UNLINKED = (_CUT,)
"""IN_EXCL_UNLINK lets that MODIFY pass, and nothing in it tells it from that of a write."""

SCENARIOS: dict[str, list[Operation]] = {
    "renames of one name are one event, whatever the cookie": [
        ("add_watch", 0, b"", Mask.MOVED_FROM),
        *[
            each
            for name in (b"x", b"y", b"z")
            for each in (*_made(b"a"), ("rename", b"a", name, False))
        ],
    ],
    "only the last event that waits is compared": [
        ("add_watch", 0, b"", Mask.ATTRIB),
        *_made(b"a"),
        *_made(b"b"),
        *[("at", "chmod", name) for name in (b"a", b"a", b"b", b"a", b"b", b"b")],
        ("read", 0),
        ("at", "chmod", b"b"),
    ],
    "a directory and its child are told in turn": [
        *_made(b"a"),
        ("add_watch", 0, b"a", ALL),
        ("add_watch", 0, b"", ALL),
        ("open", 1, b"a", os.O_RDWR),
        *_DONE,
        ("at", "unlink", b"a"),
    ],
    "one shot": [
        ("add_watch", 0, b"", Mask.CREATE | IN_ONESHOT),
        *_made(b"a"),
        *_made(b"b"),
        ("rm_watch", 0, 1),
        ("add_watch", 0, b"", Mask.CREATE | IN_ONESHOT),
        ("add_watch", 0, b"", Mask.DELETE | IN_MASK_ADD),
        ("at", "unlink", b"a"),
        ("add_watch", 0, b"", Mask.CREATE | IN_ONESHOT),
        ("add_watch", 0, b"", Mask.CREATE),
        *_made(b"c"),
        *_made(b"d"),
    ],
    "one shot on both sides": [
        *_made(b"a"),
        ("add_watch", 0, b"a", Mask.ATTRIB | IN_ONESHOT),
        ("add_watch", 0, b"", Mask.ATTRIB | IN_ONESHOT),
        ("at", "chmod", b"a"),
        ("at", "chmod", b"a"),
    ],
    "one shot of a removed file": [
        *_made(b"a"),
        ("add_watch", 0, b"a", Mask.DELETE_SELF | IN_ONESHOT),
        ("at", "unlink", b"a"),
    ],
    "masks are replaced and added to": [
        *_made(b"a"),
        ("add_watch", 0, b"a", Mask.ATTRIB),
        ("add_watch", 0, b"a", Mask.MODIFY),
        ("at", "chmod", b"a"),
        ("at", "truncate", b"a", 1),
        ("add_watch", 0, b"a", Mask.ATTRIB | IN_MASK_ADD),
        ("at", "chmod", b"a"),
        ("add_watch", 0, b"a", Mask.OPEN | IN_MASK_CREATE),
        ("add_watch", 0, b"a", Mask.OPEN | IN_MASK_CREATE | IN_MASK_ADD),
        ("add_watch", 0, b"a", Mask.OPEN | IN_ONLYDIR),
        ("add_watch", 0, b"a", 0),
        ("add_watch", 0, b"a", 0x1000),
        ("add_watch", 0, b"none", Mask.OPEN),
        ("add_watch", 0, b"a/none", Mask.OPEN),
        ("open", 1, b"a", os.O_RDWR),
    ],
    "no event at all is heard until the end": [
        *_made(b"a"),
        ("add_watch", 0, b"a", IN_ONESHOT),
        ("add_watch", 1, b"a", Mask.ISDIR),
        ("at", "chmod", b"a"),
        ("at", "unlink", b"a"),
    ],
    "an unlinked child": [
        ("add_watch", 0, b"", ALL | IN_EXCL_UNLINK),
        ("add_watch", 1, b"", ALL),
        ("open", 1, b"a", MAKE),
        ("add_watch", 0, b"a", ALL | IN_EXCL_UNLINK),
        ("through", 1, "write"),
        ("at", "unlink", b"a"),
        *_DONE,
    ],
    _CUT: [
        ("add_watch", 0, b"", ALL | IN_EXCL_UNLINK),
        ("open", 1, b"a", MAKE),
        ("at", "unlink", b"a"),
        ("through", 1, "write"),
        ("through", 1, "ftruncate", 1),
        *_DONE,
    ],
    "a child that another has replaced": [
        ("add_watch", 0, b"", ALL | IN_EXCL_UNLINK),
        ("add_watch", 1, b"", ALL),
        ("open", 1, b"a", MAKE),
        ("open", 2, b"b", MAKE),
        ("rename", b"b", b"a", False),
        ("through", 2, "write"),
        *_DONE,
        ("close", 2),
    ],
    "exclusion is taken back": [
        ("add_watch", 0, b"", ALL | IN_EXCL_UNLINK),
        ("open", 1, b"a", MAKE),
        ("at", "unlink", b"a"),
        ("through", 1, "write"),
        ("add_watch", 0, b"", ALL),
        *_DONE,
    ],
    "of two names the first goes while it is open": [
        ("open", 1, b"a", MAKE),
        ("at", "link", b"a", b"b"),
        ("add_watch", 0, b"a", ALL),
        ("add_watch", 0, b"", ALL),
        ("at", "unlink", b"a"),
        ("at", "unlink", b"b"),
        *_DONE,
    ],
    "of two names the last goes while it is open": [
        ("open", 1, b"a", MAKE),
        ("at", "link", b"a", b"b"),
        ("add_watch", 0, b"a", ALL),
        ("add_watch", 0, b"", ALL),
        ("at", "unlink", b"b"),
        ("at", "unlink", b"a"),
        *_DONE,
    ],
    "a removed directory is held by a removed file": [
        ("at", "mkdir", b"d"),
        ("open", 1, b"d/a", MAKE),
        ("add_watch", 0, b"d", ALL),
        ("add_watch", 0, b"d/a", ALL),
        ("add_watch", 0, b"", ALL),
        ("at", "unlink", b"d/a"),
        ("at", "rmdir", b"d"),
        *_DONE,
    ],
    "directories are renamed, replaced and exchanged": [
        *[("at", "mkdir", name) for name in (b"d", b"e", b"e/d")],
        *[("add_watch", 0, name, ALL) for name in (b"d", b"e", b"e/d", b"")],
        ("rename", b"d", b"f", False),
        ("rename", b"f", b"e/d", False),
        ("at", "mkdir", b"d"),
        ("rename", b"d", b"e/d", True),
        ("rename", b"d", b"d", False),
        ("rename", b"e", b"e/d/x", False),
    ],
    "two names of one file are not renamed": [
        *_made(b"a"),
        ("at", "link", b"a", b"b"),
        ("add_watch", 0, b"a", ALL),
        ("add_watch", 0, b"", ALL),
        ("rename", b"a", b"b", False),
        ("rename", b"a", b"b", True),
        ("at", "chmod", b"a"),
    ],
    "a name is used again": [
        ("add_watch", 0, b"", ALL | IN_EXCL_UNLINK),
        ("open", 1, b"a", MAKE),
        ("at", "unlink", b"a"),
        ("open", 2, b"a", MAKE),
        ("through", 1, "write"),
        ("through", 2, "write"),
        ("at", "unlink", b"a"),
        *_DONE,
        ("close", 2),
    ],
}
