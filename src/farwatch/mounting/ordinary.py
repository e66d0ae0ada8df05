"""A mount of an ordinary user's.

What is otherwise than root's

    mounted by     fusermount3 (linux/fusermount.py); without ``allow_other`` nobody but this
                   user can use it, so the file system of SRC alone checks permissions, as it
                   does for this user
    server         stays in the user's own mounts, and opens what it serves by descriptors that
                   it keeps: SRC's file system stays busy
    source         inotify, on what is in use in MNT
    agent          known by its thread (session/agents.py); in a clone of the mount where user
                   namespaces can be made, else in MNT itself, which is busy then: whoever asks
                   this program to unmount has it end first
    ``ro``         refused by the server: a file system that is read-only itself refuses replays
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress

from farwatch.linux import fusermount, mounts
from farwatch.linux.fusermount import NotMounted, escaped
from farwatch.mounting.checks import Paths
from farwatch.mounting.hearing import source_of
from farwatch.mounting.options import DEFAULTS, Options
from farwatch.mounting.place import Place
from farwatch.mounting.server import MAX_WRITE, Inherited
from farwatch.mounting.serverprocess import ServerProcess
from farwatch.mounting.userserver import serve_as_user
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import FSTYPE, DevFuse

log = logging.getLogger(__name__)

_LIMITS = (
    "mounted as an ordinary user: remote changes are heard of in the directories that are in use"
    " in MNT; of other users' programs it is not known what they watch; replays that this user"
    " may not do (in sticky directories, of block devices) raise no events, and are seen when"
    " asked for; file contents go through the server"
)

_OPTIONS = (
    (mounts.MOUNT_ATTR_NOEXEC, b"noexec"),
    (mounts.MOUNT_ATTR_NOATIME, b"noatime"),
)


class OrdinaryMount:
    """One mount of this user's; see supervisor.Mount."""

    holds_agent = True

    def __init__(self, paths: Paths, options: Options = DEFAULTS) -> None:
        self.paths = paths
        self.options = options
        self.place: Place | None = None
        self._is_mounted = False

    def make(self, server: ServerProcess) -> None:
        """See supervisor.Mount."""
        source_path, target = self.paths
        src_fd = os.open(source_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = source_of(self.options.events, src_fd, source_path)
            with source:
                wanted = list(_fuse_options(source_path, src_fd, self.options))
                try:
                    fd = fusermount.mount(target, wanted)
                except NotMounted as refused:
                    raise Refused(f"cannot mount: {refused}", target) from None
                self._is_mounted = True
                with DevFuse(MAX_WRITE, fd) as device:
                    self.place = Place.of(target)
                    inherited = Inherited(device, source, src_fd, self.options)
                    server.fork(lambda on_ready: serve_as_user(inherited, on_ready))
        finally:
            os.close(src_fd)

    def ready(self) -> None:
        """Says what is not to be had."""
        log.info("%s", _LIMITS)

    def undo(self, where: bytes | None) -> None:
        """See supervisor.Mount."""
        if self._is_mounted and (self.place is None or where is not None):
            with suppress(OSError):
                fusermount.unmount(where or self.paths.target, lazy=True)

    def close(self) -> None:
        """Nothing is kept."""


def _fuse_options(source: bytes, src_fd: int, options: Options) -> Iterator[bytes]:
    """What fusermount3 is asked for."""
    yield b"fsname=" + escaped(source)
    yield b"subtype=" + FSTYPE.partition(b".")[2]
    attributes = options.over(mounts.attributes_of(src_fd))
    for bit, name in _OPTIONS:
        if attributes & bit:
            yield name
    if options.synchronous:
        yield b"sync"
    if options.allow_other:
        # Others act with this user's rights, as far as its modes and owners allow.
        yield b"allow_other"
        yield b"default_permissions"
