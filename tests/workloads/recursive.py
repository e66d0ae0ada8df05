"""A recursive watcher as programs write it: a watch on every directory, more as they appear.

    python recursive.py DIRECTORY

One file, standard library only.  It says ``ready`` and then, whenever a name that
begins with ``.tell-`` appears in DIRECTORY, what it believes to exist below: one
JSON line, a sorted list of [path, whether it is a directory].
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys

HEADER = struct.Struct("iIII")
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
IGNORED, ISDIR, Q_OVERFLOW = 0x8000, 0x40000000, 0x4000
WANTED = MOVED_FROM | MOVED_TO | CREATE | DELETE
ONLYDIR, DONT_FOLLOW = 0x01000000, 0x02000000

_libc = ctypes.CDLL(None, use_errno=True)


class Knowledge:
    """What exists below ``root``, from events and from a listing of each new directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.known: dict[str, bool] = {}
        self.fd = _libc.inotify_init1(os.O_CLOEXEC)
        self._paths: dict[int, str] = {}
        self.enter("")

    def enter(self, path: str) -> None:
        """Watch a directory, and then list it; it may be gone again."""
        full = os.path.join(self.root, path)
        mask = WANTED | ONLYDIR | DONT_FOLLOW
        wd = _libc.inotify_add_watch(self.fd, os.fsencode(full), ctypes.c_uint32(mask))
        if wd < 0:
            return
        self._paths[wd] = path
        try:
            entries = list(os.scandir(full))
        except OSError:
            return
        for entry in entries:
            self.appear(os.path.join(path, entry.name), entry.is_dir(follow_symlinks=False))

    def appear(self, path: str, is_directory: bool) -> None:
        self.known[path] = is_directory
        if is_directory:
            self.enter(path)

    def vanish(self, path: str) -> None:
        below = path + "/"
        for name in [name for name in self.known if name == path or name.startswith(below)]:
            del self.known[name]
        gone = [wd for wd, at in self._paths.items() if at == path or at.startswith(below)]
        for wd in gone:
            _libc.inotify_rm_watch(self.fd, wd)
            del self._paths[wd]

    def read(self) -> bool:
        """Take in what has happened; whether somebody wants to know."""
        data, at, asked = os.read(self.fd, 65536), 0, False
        while at < len(data):
            wd, mask, _, length = HEADER.unpack_from(data, at)
            at += HEADER.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            asked |= self.take(wd, mask, name)
        return asked

    def take(self, wd: int, mask: int, name: str) -> bool:
        if mask & Q_OVERFLOW:
            raise SystemExit("the queue overflowed")
        if mask & IGNORED or wd not in self._paths:
            return False
        path = os.path.join(self._paths[wd], name)
        if path.startswith(".tell-"):
            return bool(mask & CREATE)
        if mask & (CREATE | MOVED_TO):
            self.vanish(path)
            self.appear(path, bool(mask & ISDIR))
        elif mask & (DELETE | MOVED_FROM):
            self.vanish(path)
        return False

    def tell(self) -> None:
        told = sorted(item for item in self.known.items() if not item[0].startswith(".tell-"))
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def main() -> None:
    knowledge = Knowledge(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        if knowledge.read():
            knowledge.tell()


if __name__ == "__main__":
    main()
