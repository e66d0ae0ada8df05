"""What is mounted below the shared directory, taken up and let go while the server runs.

    somebody in the host's mount namespace           the server
        clones a mount ────────── + PATH, fd ──────>  attaches it, watches its file system
        it is gone there ──────── - PATH ──────────>  detaches it

Messages are datagrams of a Unix socket: one byte, then the path below the shared directory
and, each after a NUL, the type of the file system and the mount's id on the host, decimal.  The
server never answers.

A mount whose path has become another is told as one that arrives.  Where a directory above it
was renamed, the server's has gone along; else (``mount --move``) it is attached anew.
"""

from __future__ import annotations

import array
import logging
import os
import select
import socket
from collections.abc import Iterable
from typing import NamedTuple

from farwatch.events import Place
from farwatch.export.submounts import Submount
from farwatch.export.tree import Export
from farwatch.session.session import Session
from farwatch.sources.aliases import Aliases
from farwatch.sources.fanotify import FanotifySource, NoSource
from farwatch.sources.mountsource import MountSource

log = logging.getLogger(__name__)

_ARRIVED, _GONE = b"+", b"-"
_LONGEST = 4096 + 256
"""Bytes of a path (PATH_MAX), and of a file system's type."""


_AGAIN_SECONDS = 0.5


class Arrived(NamedTuple):
    """A mount, at a path below the shared directory: a detached clone of it (``open_tree``).

    Whoever receives it owns ``tree``.
    """

    path: bytes
    fstype: bytes
    mount_id: int
    tree: int


class Gone(NamedTuple):
    """What was mounted at a path is not any more."""

    path: bytes


def pair() -> tuple[socket.socket, socket.socket]:
    """The sockets: who tells, who is told."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def tell(to: socket.socket, what: Arrived | Gone) -> None:
    """Raises BlockingIOError if too many are on their way, OSError if nobody listens."""
    if isinstance(what, Gone):
        to.send(_GONE + what.path, socket.MSG_DONTWAIT)
        return
    fds = array.array("i", [what.tree])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
    words = b"\0".join((what.path, what.fstype, b"%d" % what.mount_id))
    to.sendmsg([_ARRIVED + words], ancillary, socket.MSG_DONTWAIT)


def hear(told: socket.socket) -> Arrived | Gone | None:
    """The next one; None when nobody tells any more."""
    data, fds, _, _ = socket.recv_fds(told, _LONGEST, 1)
    if not data:
        return None
    if data[:1] == _GONE:
        return Gone(data[1:])
    path, fstype, mount_id = data[1:].split(b"\0")
    return Arrived(path, fstype, int(mount_id), fds[0])


class Submounts:
    """The mounts below one export, with their part of its source and its session.

    One thread uses it at a time.
    """

    def __init__(self, export: Export, source: MountSource, session: Session) -> None:
        self._export = export
        self._session = session
        # Other sources hear of nodes that the client holds, wherever they are.
        self._marks = source if isinstance(source, FanotifySource) else None
        self._aliases = Aliases(lambda key: key in session.view.nodes.by_key)
        if self._marks is not None:
            self._marks.translate = self._aliases.translate
        self._found: dict[bytes, Submount] = {}
        self._paths: dict[int, bytes] = {}
        """Where each mount of the host's is, by its id there."""
        self._doubted: set[Place] = set()
        """Mount points that are to be asked for once more."""
        self._root = export.root_key[:8]

    def take(self, what: Iterable[Arrived | Gone]) -> None:
        """Attaches and detaches; what cannot be is said in the log."""
        for each in what:
            if isinstance(each, Gone):
                self._detach(each.path)
                continue
            try:
                self._attach(each)
            except OSError as error:
                log.warning(
                    "%s: what is mounted there (%s) is not shown: %s",
                    _printable(each.path),
                    _printable(each.fstype),
                    error.strerror,
                )
            finally:
                os.close(each.tree)

    def run(self, told: socket.socket) -> None:
        """Does as it is told until nobody tells any more."""
        poll = select.poll()
        poll.register(told, select.POLLIN)
        while True:
            if poll.poll(_AGAIN_SECONDS * 1000 if self._doubted else None):
                what = hear(told)
                if what is None:
                    return
                self._follow(what)
            else:
                self._doubt_again()

    def _follow(self, what: Arrived | Gone) -> None:
        try:
            self.take((what,))
        except Exception:
            log.exception("a mount below the shared directory could not be followed")

    def _attach(self, arrived: Arrived) -> None:
        before = self._paths.get(arrived.mount_id)
        if before is not None and self._has_gone_along(before, arrived.path):
            return
        if before is not None:
            self._detach(before)
        self._detach(arrived.path)
        submount = self._export.attach(arrived.tree, arrived.path)
        self._found[arrived.path] = submount
        self._paths[arrived.mount_id] = arrived.path
        if self._marks is not None:
            self._set_aliases(submount.fsid)
            self._watch(self._marks, submount, arrived)
        self._doubt(submount.place)

    def _has_gone_along(self, before: bytes, path: bytes) -> bool:
        """Whether what was attached at one path is at the other by now, with its directory."""
        submount = self._found.get(before)
        if submount is None or path in self._found:
            return False
        if self._export.mount_at(path) != submount.mount_id:
            return False
        self._found[path] = self._found.pop(before)
        self._paths = {each: path if at == before else at for each, at in self._paths.items()}
        return True

    def _watch(self, marks: FanotifySource, submount: Submount, arrived: Arrived) -> None:
        try:
            marks.add(submount.fd)
            marks.silence(submount.fd)
        except NoSource as error:
            self._session.unheard.add(submount.prefix)
            log.warning(
                "%s (%s) is shown, but what others change in it is not heard: %s",
                _printable(arrived.path),
                _printable(arrived.fstype),
                error.strerror,
            )

    def _detach(self, path: bytes) -> None:
        submount = self._found.pop(path, None)
        if submount is None:
            return
        self._paths = {each: at for each, at in self._paths.items() if at != path}
        for inner in [other for other in self._found if other.startswith(path + b"/")]:
            self._detach(inner)
        if self._marks is not None:
            self._marks.let_go(submount.fd)
        self._export.detach(submount)
        self._session.unheard.discard(submount.prefix)
        if self._marks is not None:
            self._set_aliases(submount.fsid)
            if not self._is_mounted(submount.fsid):
                self._marks.remove(submount.fsid)
        self._doubt(submount.place)

    def _doubt(self, place: Place) -> None:
        """The client is to ask again what a mount point holds."""
        view = self._session.view
        with view.lock:
            directory = view.nodes.by_key.get(place.directory)
            if directory is not None:
                view.remounted(directory, place.name)
        self._doubted.add(place)

    def _doubt_again(self) -> None:
        """An answer that was on its way may have been believed after it was doubted."""
        view = self._session.view
        with view.lock:
            for place in self._doubted:
                directory = view.nodes.by_key.get(place.directory)
                if directory is not None:
                    view.belief.doubts.name(directory, place.name)
        self._doubted.clear()

    def _is_mounted(self, fsid: bytes) -> bool:
        return fsid == self._root or any(other.fsid == fsid for other in self._found.values())

    def _set_aliases(self, fsid: bytes) -> None:
        prefixes = [fsid] if fsid == self._root else []
        prefixes += [other.prefix for other in self._found.values() if other.fsid == fsid]
        self._aliases.set(fsid, prefixes)


def _printable(name: bytes) -> str:
    """A name without what would break a line of the log."""
    return repr(os.fsdecode(name))
