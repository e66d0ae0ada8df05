"""The watching program of the conformance suite: plain inotify, nothing of farwatch.

One file, standard library only, Python 3.11: it is started as a process of its
own beside the file system that it watches, on this machine or in a guest.  It
takes requests as JSON lines on standard input and answers on standard output,
where the events come, too, as they arrive:

    {"n": 1, "do": "watch", "watch": "w1", "group": "a", "path": "d", "mask": 4095}
    {"n": 1, "answer": ""}             or  {"n": 1, "error": "ENOENT"}
    {"group": "a", "watch": "w1", "mask": 256, "cookie": 0, "name": "x", "at": 123}

``Actor`` is what changes a tree.  The harness uses it for the remote side, and
this program for the changes that the client itself makes ("local" ones).  ``System``
is the system calls that both need: another one can be put in its place, for a client
that has the files without a mount.

Numbers are those of inotify(7), renameat2(2) and <sys/inotify.h>.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import shutil
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC
IN_CREATE = 0x100
IN_IGNORED = 0x8000
EVENT_HEADER = struct.Struct("iIII")
IN_READING = 0x1 | 0x10 | 0x20
SENTINEL_WATCH = "sentinel"
KEPT_DIRECTORY = "keep"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


class Inotify:
    """One inotify instance whose watches have names."""

    def __init__(self) -> None:
        self.fd = _check(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC))
        self._names: dict[int, str] = {}
        self._descriptors: dict[str, int] = {}

    def watch(self, name: str, path: str, mask: int) -> None:
        """Watch ``path``.  An inode that is watched already keeps its name."""
        wd = _check(
            _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)), path
        )
        self._descriptors[name] = wd
        self._names.setdefault(wd, name)

    def unwatch(self, name: str) -> None:
        _check(_libc.inotify_rm_watch(self.fd, self._descriptors[name]))

    def read(self) -> list[dict[str, object]]:
        """Every event that waits: watch, mask, cookie, name."""
        events: list[dict[str, object]] = []
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return events
            at = 0
            while at < len(data):
                wd, mask, cookie, length = EVENT_HEADER.unpack_from(data, at)
                at += EVENT_HEADER.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                events.append(
                    {
                        "watch": self._names.get(wd, "*"),
                        "mask": mask,
                        "cookie": cookie,
                        "name": os.fsdecode(name),
                    }
                )

    def close(self) -> None:
        os.close(self.fd)


class System:
    """The system calls on files, with paths as they are and descriptors that are numbers.

    Each raises OSError as the call does.
    """

    def inotify(self) -> Inotify:
        return Inotify()

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(fd, size)

    def write(self, fd: int, data: bytes) -> None:
        os.write(fd, data)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fallocate(self, fd: int, size: int) -> None:
        os.posix_fallocate(fd, 0, size)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def futime(self, fd: int) -> None:
        """Both times to now."""
        os.utime(fd)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(path, mode, device)

    def bind(self, path: str) -> None:
        """bind(2), which makes a socket's node; relative, for sun_path holds 108 bytes."""
        directory, name = os.path.split(path)
        fd = os.open(directory, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)

    def link(self, old: str, new: str) -> None:
        os.link(old, new, follow_symlinks=False)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def rmtree(self, path: str) -> None:
        shutil.rmtree(path)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        if not flags:
            os.rename(old, new)
            return
        source, target = os.fsencode(old), os.fsencode(new)
        _check(_libc.renameat2(AT_FDCWD, source, AT_FDCWD, target, flags), old)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(path, size)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Of a symlink itself, as are the times and the attributes."""
        os.chown(path, uid, gid, follow_symlinks=False)

    def utime(self, path: str, times: tuple[int | None, int | None] | None) -> None:
        """Last access and last change to these seconds, or as it was (None); without: now."""
        if times is None:
            os.utime(path, follow_symlinks=False)
            return
        omit = (1 << 30) - 2  # UTIME_OMIT, utimensat(2)
        pairs = [(0, omit) if each is None else (each, 0) for each in times]
        spec = (ctypes.c_long * 4)(*pairs[0], *pairs[1])
        nofollow = 0x100  # AT_SYMLINK_NOFOLLOW
        _check(_libc.utimensat(AT_FDCWD, os.fsencode(path), spec, nofollow), path)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        os.setxattr(path, name, value, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(path, name, follow_symlinks=False)

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)


class Actor:
    """Changes a tree by commands that are lists of words.

    A path is relative to ``root``; one that begins with ``^`` is relative to
    ``outside``, a directory on the same file system that is not exported.
    Every command raises OSError as the system call does.
    """

    def __init__(self, root: str, outside: str = "", system: System | None = None) -> None:
        self.root = root
        self.outside = outside
        self.system = system or System()
        self._open: dict[str, int] = {}

    def do(self, words: list[str]) -> str:
        """Carry out one command, and return what there is to tell of it."""
        method: Callable[..., str | None] = getattr(self, "do_" + words[0])
        return method(*words[1:]) or ""

    def path(self, path: str) -> str:
        if path.startswith("^"):
            return os.path.join(self.outside, path[1:])
        return os.path.join(self.root, path)

    def release(self) -> None:
        """Close whatever is still open."""
        for fd in self._open.values():
            self.system.close(fd)
        self._open.clear()

    # Names.

    def do_mkdir(self, path: str) -> None:
        self.system.mkdir(self.path(path))

    def do_mkfile(self, path: str) -> None:
        """An empty file: open with O_CREAT and O_EXCL, close."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self.system.close(self.system.open(self.path(path), flags))

    def do_mknod(self, path: str, kind: str) -> None:
        kinds = {
            "file": stat.S_IFREG,
            "fifo": stat.S_IFIFO,
            "char": stat.S_IFCHR,
            "block": stat.S_IFBLK,
        }
        self.system.mknod(self.path(path), kinds[kind] | 0o600, os.makedev(1, 3))

    def do_socket(self, path: str) -> None:
        self.system.bind(self.path(path))

    def do_link(self, old: str, new: str) -> None:
        self.system.link(self.path(old), self.path(new))

    def do_symlink(self, target: str, path: str) -> None:
        self.system.symlink(target, self.path(path))

    def do_unlink(self, path: str) -> None:
        self.system.unlink(self.path(path))

    def do_rmdir(self, path: str) -> None:
        self.system.rmdir(self.path(path))

    def do_rmtree(self, path: str) -> None:
        self.system.rmtree(self.path(path))

    def do_rename(self, old: str, new: str) -> None:
        self.system.rename(self.path(old), self.path(new))

    def do_exchange(self, old: str, new: str) -> None:
        self.system.rename(self.path(old), self.path(new), RENAME_EXCHANGE)

    def do_noreplace(self, old: str, new: str) -> None:
        self.system.rename(self.path(old), self.path(new), RENAME_NOREPLACE)

    def do_whiteout(self, old: str, new: str) -> None:
        self.system.rename(self.path(old), self.path(new), RENAME_WHITEOUT)

    # Content, by path.

    def do_write(self, path: str, text: str = "") -> None:
        """open with O_CREAT and O_TRUNC, write, close."""
        self._write(path, text, os.O_CREAT | os.O_TRUNC)

    def do_append(self, path: str, text: str) -> None:
        self._write(path, text, os.O_APPEND)

    def do_overwrite(self, path: str, text: str) -> None:
        """The first bytes, neither truncated nor created."""
        self._write(path, text, 0)

    def _write(self, path: str, text: str, flags: int) -> None:
        fd = self.system.open(self.path(path), os.O_WRONLY | os.O_NONBLOCK | flags)
        try:
            if text:
                self.system.write(fd, text.encode())
        finally:
            self.system.close(fd)

    def do_read(self, path: str) -> None:
        fd = self.system.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            self.system.read(fd, 65536)
        finally:
            self.system.close(fd)

    def do_readdir(self, path: str) -> None:
        self.system.listdir(self.path(path))

    def do_touch(self, path: str) -> None:
        """touch(1): open with O_CREAT, utimensat by descriptor, close."""
        fd = self.system.open(self.path(path), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
        try:
            self.system.futime(fd)
        finally:
            self.system.close(fd)

    def do_truncate(self, path: str, size: str) -> None:
        self.system.truncate(self.path(path), int(size))

    # Attributes, by path.

    def do_chmod(self, path: str, mode: str) -> None:
        self.system.chmod(self.path(path), int(mode, 8))

    def do_chown(self, path: str, uid: str, gid: str) -> None:
        self.system.chown(self.path(path), int(uid), int(gid))

    def do_utime(self, path: str, which: str) -> None:
        """Set ``atime``, ``mtime`` or ``both`` to a time in the past, ``now`` both to now."""
        past = 1_000_000_000
        times = {"now": None, "atime": (past, None), "mtime": (None, past), "both": (past, past)}
        self.system.utime(self.path(path), times[which])

    def do_setxattr(self, path: str, name: str, value: str) -> None:
        self.system.setxattr(self.path(path), name, value.encode())

    def do_rmxattr(self, path: str, name: str) -> None:
        self.system.removexattr(self.path(path), name)

    # Files held open.

    def do_open(self, handle: str, mode: str, path: str) -> None:
        """``mode``: r, w, rw, a (append), c (create and write), d (directory)."""
        flags = {
            "r": os.O_RDONLY,
            "w": os.O_WRONLY,
            "rw": os.O_RDWR,
            "a": os.O_WRONLY | os.O_APPEND,
            "c": os.O_WRONLY | os.O_CREAT,
            "d": os.O_RDONLY | os.O_DIRECTORY,
        }[mode]
        if handle in self._open:
            raise OSError(errno.EBUSY, "this handle is open", handle)
        self._open[handle] = self.system.open(self.path(path), flags | os.O_NONBLOCK)

    def _fd(self, handle: str) -> int:
        if handle not in self._open:
            raise OSError(errno.EBADF, "no such handle", handle)
        return self._open[handle]

    def do_put(self, handle: str, text: str) -> None:
        self.system.write(self._fd(handle), text.encode())

    def do_get(self, handle: str) -> None:
        self.system.read(self._fd(handle), 65536)

    def do_cut(self, handle: str, size: str) -> None:
        self.system.ftruncate(self._fd(handle), int(size))

    def do_extend(self, handle: str, size: str) -> None:
        self.system.fallocate(self._fd(handle), int(size))

    def do_mode(self, handle: str, mode: str) -> None:
        self.system.fchmod(self._fd(handle), int(mode, 8))

    def do_close(self, handle: str) -> None:
        self.system.close(self._fd(handle))
        del self._open[handle]

    # Questions.

    def do_look(self, path: str) -> str:
        """What lstat tells: kind and mode, who else owns it, links, size or target."""
        full = self.path(path)
        status = self.system.lstat(full)
        told = stat.filemode(status.st_mode)
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            told += f" {status.st_uid}:{status.st_gid}"
        if stat.S_ISDIR(status.st_mode):
            return told
        told += f" links={status.st_nlink}"
        if stat.S_ISLNK(status.st_mode):
            return f"{told} -> {self.system.readlink(full)}"
        return f"{told} size={status.st_size}"

    def do_list(self, path: str) -> str:
        return " ".join(sorted(self.system.listdir(self.path(path))))

    def do_peek(self, path: str) -> str:
        """The content."""
        fd = self.system.open(self.path(path), os.O_RDONLY)
        try:
            pieces = list(iter(lambda: self.system.read(fd, 65536), b""))
        finally:
            self.system.close(fd)
        return repr(b"".join(pieces))[1:]

    def do_tree(self, path: str) -> str:
        """The whole tree in one text: names, what ``look`` tells of them, contents."""
        lines = [f"{path}: {self.do_look(path)}"]
        if path != "." and stat.S_ISLNK(self.system.lstat(self.path(path)).st_mode):
            return lines[0]
        for name in sorted(self.system.listdir(self.path(path))):
            child = os.path.join(path, name)
            mode = self.system.lstat(self.path(child)).st_mode
            if stat.S_ISDIR(mode):
                lines.append(self.do_tree(child))
                continue
            lines.append(f"{child}: {self.do_look(child)}")
            if stat.S_ISREG(mode):
                lines.append(f"{child}= {self.do_peek(child)[:200]}")
        return "\n".join(lines)


class Program:
    """The loop: requests in, answers and events out."""

    def __init__(self, root: str, system: System | None = None) -> None:
        self.root = root
        self.system = system or System()
        self.actor = self._actor("")
        self._groups: dict[str, Inotify] = {}
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._lock = threading.Lock()
        self._rest = b""
        self._ended = False

    def _actor(self, base: str) -> Actor:
        return Actor(os.path.join(self.root, base), system=self.system)

    def run(self) -> None:
        while not self._ended:
            ready = {fd for fd, _ in self._poll.poll()}
            self._tell_events()
            if 0 in ready:
                self._take()

    def _take(self) -> None:
        data = os.read(0, 65536)
        if not data:
            self._ended = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._answer(json.loads(line))

    def _answer(self, request: dict[str, object]) -> None:
        try:
            answer = getattr(self, "do_" + str(request["do"]))(request)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            self._tell({"n": request["n"], "error": name, "about": str(error)})
            return
        if answer is not None:
            self._tell({"n": request["n"], "answer": answer})

    def _tell(self, message: dict[str, object]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(1, line) :]

    def _tell_events(self) -> None:
        for group, inotify in self._groups.items():
            now = time.monotonic_ns()
            for event in inotify.read():
                self._tell({"group": group, "at": now, **event})

    # Requests.

    def do_start(self, request: dict[str, object]) -> str:
        """A fresh beginning in the directory ``base`` below the root."""
        self.do_stop(request)
        self.actor = self._actor(str(request["base"]))
        return ""

    def do_stop(self, _: dict[str, object]) -> str:
        for inotify in self._groups.values():
            self._poll.unregister(inotify.fd)
            inotify.close()
        self._groups.clear()
        self.actor.release()
        return ""

    def do_keep(self, _: dict[str, object]) -> str:
        """Want OPEN, ACCESS and CLOSE_NOWRITE for as long as this program lives."""
        self._kept = self.system.inotify()
        self._kept.watch(KEPT_DIRECTORY, os.path.join(self.root, KEPT_DIRECTORY), IN_READING)
        return ""

    def do_group(self, request: dict[str, object]) -> str:
        """A new inotify instance; it watches the sentinel's directory."""
        inotify = self.system.inotify()
        self._groups[str(request["group"])] = inotify
        self._poll.register(inotify.fd, select.POLLIN)
        inotify.watch(SENTINEL_WATCH, os.path.join(self.root, SENTINEL_WATCH), IN_CREATE)
        return ""

    def do_watch(self, request: dict[str, object]) -> str:
        path = self.actor.path(str(request["path"]))
        self._groups[str(request["group"])].watch(
            str(request["watch"]), path, int(str(request["mask"]))
        )
        return ""

    def do_unwatch(self, request: dict[str, object]) -> str:
        self._groups[str(request["group"])].unwatch(str(request["watch"]))
        return ""

    def do_act(self, request: dict[str, object]) -> str:
        words = request["words"]
        assert isinstance(words, list)
        return self.actor.do(words)

    def do_sentinel(self, request: dict[str, object]) -> str:
        """A change of the client's own that all groups hear of."""
        path = os.path.join(self.root, SENTINEL_WATCH, str(request["name"]))
        self.system.close(self.system.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        return ""

    def do_background(self, request: dict[str, object]) -> None:
        """Many commands in a thread, errors and all; answers when it is through."""
        commands = request["commands"]
        assert isinstance(commands, list)
        actor, pause = self.actor, float(str(request["pause"]))

        def work() -> None:
            outcomes = []
            for words in commands:
                try:
                    outcomes.append(actor.do(words))
                except OSError as error:
                    outcomes.append(errno.errorcode.get(error.errno or 0, str(error)))
                if pause:
                    time.sleep(pause)
            self._tell({"n": request["n"], "answer": "\n".join(outcomes)})

        threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    Program(sys.argv[1]).run()
