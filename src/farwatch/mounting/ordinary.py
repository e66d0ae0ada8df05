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
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

from farwatch.linux import fusermount, mounts
from farwatch.linux.fusermount import NotMounted, escaped
from farwatch.mounting import guard
from farwatch.mounting.checks import Paths
from farwatch.mounting.hearing import source_of
from farwatch.mounting.options import DEFAULTS, Options
from farwatch.mounting.place import Place
from farwatch.mounting.server import MAX_WRITE, Inherited
from farwatch.mounting.supervisor import Supervisor, ends_within
from farwatch.mounting.userserver import serve_as_user
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import FSTYPE, DevFuse

log = logging.getLogger(__name__)

_AGENT_SECONDS = 2.0
"""How long an agent that was told to let go is not replaced: somebody unmounts."""
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


class OrdinarySupervisor(Supervisor):
    """One mount of this user's, from its making to its end."""

    def __init__(self, paths: Paths, options: Options = DEFAULTS) -> None:
        super().__init__(paths, options)
        self._is_mounted = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """As Supervisor's; says what is not to be had."""

        def ready() -> None:
            log.info("%s", _LIMITS)
            on_ready()

        return super().run(ready)

    def _start(self) -> None:
        source_path, target = self._paths
        src_fd = os.open(source_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = source_of(self._options.events, src_fd, source_path)
            with source:
                wanted = list(_fuse_options(source_path, src_fd, self._options))
                try:
                    fd = fusermount.mount(target, wanted)
                except NotMounted as refused:
                    raise Refused(f"cannot mount: {refused}", target) from None
                self._is_mounted = True
                with DevFuse(MAX_WRITE, fd) as device:
                    self._place = Place.of(target)
                    self._fork_server(Inherited(device, source, src_fd, self._options))
        finally:
            os.close(src_fd)
        if self._options.auto_unmount:
            self._guard = guard.start(self._server_fd, self._place)
        self._start_agent()

    def _serve(self, inherited: Inherited, on_ready: Callable[[], None]) -> None:
        serve_as_user(inherited, on_ready)

    def _abandon(self) -> None:
        super()._abandon()
        if self._is_mounted and (self._place is None or self._where() is not None):
            with suppress(OSError):
                fusermount.unmount(self._where() or self._paths.target, lazy=True)

    def _leave(self) -> None:
        is_first = not self._is_leaving
        # Before the agent's end is seen: it is not to be started again.
        if is_first and self._agent is not None and self._agent.poll() is None:
            self._is_leaving = True
            self._agent.terminate()
            ends_within(self._agent_fd, _AGENT_SECONDS)
            self._is_leaving = False
        super()._leave()

    def _revive_agent(self) -> int:
        assert self._agent is not None
        is_told = self._agent.wait() == -signal.SIGTERM
        if is_told and not self._is_leaving and ends_within(self._server_fd, _AGENT_SECONDS):
            return -1
        return super()._revive_agent()


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
