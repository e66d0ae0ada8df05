"""Watches over one mount: has it made, starts its agent, and unmounts.

    server forked and mounted -> agent started -> ready -> ... -> unmounted

The supervisor stays in the host's mount namespace, where the mount is.  The server is a
fork of it (serverprocess.py), the agent a program of its own (agentprocess.py).  Whatever
ends first decides:

    the mount is gone      (umount, fusermount3 -u) the agent lets go of its clone, the
                           server's connection ends, and so does the supervisor
    a signal               the supervisor unmounts, and waits for the above
    the agent dies         it is started again: at once, and if it dies time and again after
                           pauses that grow
    another agent          (``farwatch agent MNT``) has the mount until it ends; one of ours
                           stands by
    the server dies        nothing can answer any more: whoever asks is told ENOTCONN, and the
                           mount is taken away
"""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import select
import signal
import subprocess
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from farwatch.agent.endings import Status
from farwatch.linux import mounts
from farwatch.linux.processes import any_within, ending, ends_within
from farwatch.linux.signals import asked_to_end
from farwatch.mounting import guard
from farwatch.mounting.agentprocess import AT_ONCE_SECONDS, AgentProcess
from farwatch.mounting.checks import Paths
from farwatch.mounting.options import Options
from farwatch.mounting.place import Place
from farwatch.mounting.serverprocess import ServerProcess
from farwatch.serving.refused import Refused

log = logging.getLogger(__name__)

_READY_SECONDS = 90.0
_UNMOUNTED_SECONDS = 2.0
"""How long an agent that was told to let go is not replaced: somebody unmounts."""


class Mount(Protocol):
    """What is watched over: root's (byroot.py), or an ordinary user's (ordinary.py)."""

    paths: Paths
    options: Options
    place: Place | None
    """Which mount it is; None before it is made."""
    holds_agent: bool
    """Whether the agent may be in the mount itself, which is busy as long as it is."""

    def make(self, server: ServerProcess) -> None:
        """Forks its server and mounts.  Raises Refused and OSError, and is then undone."""

    def ready(self) -> None:
        """It answers, and remote events are delivered."""

    def undo(self, where: bytes | None) -> None:
        """Nothing came of it: takes away what could not be unmounted by its place.

        ``where`` is the path at which that is still mounted, if it is.
        """

    def close(self) -> None:
        """The mount is gone: lets go of what was kept for it."""


class Supervisor:
    """One mount, from its making to its end."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._server = ServerProcess()
        self._agent = AgentProcess()
        self._wakeup = -1
        self._guard: subprocess.Popen[bytes] | None = None
        self._is_leaving = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """Mounts and stays until the end; the exit status.

        ``on_ready`` is called when the mount answers and remote events are delivered.
        Raises Refused if that cannot be, with nothing left behind.
        """
        _share_a_cpu(self._mount.paths)
        keep_last_words()
        with asked_to_end() as wakeup:
            self._wakeup = wakeup
            try:
                self._start()
                self._await_ready(wakeup)
            except BaseException:
                self._abandon()
                raise
            if self._is_leaving:
                return self._finish()
            self._mount.ready()
            on_ready()
            return self._watch(wakeup)

    # Starting --------------------------------------------------------------------

    def _start(self) -> None:
        mount = self._mount
        mount.make(self._server)
        if mount.options.auto_unmount and mount.place is not None:
            self._guard = guard.start(self._server.fd, mount.place)
        self._start_agent()

    def _start_agent(self, *options: str) -> None:
        self._agent.start(self._where() or self._mount.paths.target, *options)

    def _await_ready(self, wakeup: int) -> None:
        poll = select.poll()
        for fd in (self._server.ready_fd, self._agent.fd, wakeup):
            poll.register(fd, select.POLLIN)
        ready = poll.poll(_READY_SECONDS * 1000)
        fds = {fd for fd, _ in ready}
        if wakeup in fds:
            self._leave()
        elif self._server.ready_fd in fds:
            self._server.hear()
        elif self._agent.fd in fds:
            raise Refused("the agent ended while starting", remedy="see its messages")
        else:
            raise Refused(f"the mount was not ready within {_READY_SECONDS:.0f} s")

    def _abandon(self) -> None:
        """Nothing came of it: leave no mount and no process."""
        with suppress(ProcessLookupError):
            self._agent.kill()
        if self._server.pid:
            with suppress(ProcessLookupError):
                self._server.kill()
        with suppress(OSError):
            self._umount(lazy=True)
        self._reap()
        self._mount.undo(self._where())

    # Watching over ---------------------------------------------------------------

    def _watch(self, wakeup: int) -> int:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self._server.fd, select.POLLIN)
        poll.register(self._agent.fd, select.POLLIN)
        agent_fd = self._agent.fd
        while True:
            fds = {fd for fd, _ in poll.poll()}
            if self._server.fd in fds:
                return self._finish()
            if wakeup in fds:
                os.read(wakeup, 64)
                self._leave()
            if agent_fd in fds:
                poll.unregister(agent_fd)
                agent_fd = self._revive_agent()
                if agent_fd >= 0:
                    poll.register(agent_fd, select.POLLIN)

    def _revive_agent(self) -> int:
        """Starts another agent, if the mount is still there; its pidfd, or -1."""
        status = self._agent.wait()
        if self._is_leaving or self._lets_go_to_unmount(status) or self._where() is None:
            return -1
        if status == Status.REPLACED:
            # To take over in turn would be to go on like that for ever.
            log.warning("another agent has taken over; starting one that stands by")
            self._start_agent("--standby")
            return self._agent.fd
        pause = self._agent.pause_before_another(status)
        after = f" in {pause:.1f} s" if pause > AT_ONCE_SECONDS else ""
        log.warning("the agent ended (%s); starting another%s", ending(status), after)
        if any_within((self._server.fd, self._wakeup), pause):
            return -1
        self._start_agent()
        return self._agent.fd

    def _lets_go_to_unmount(self, status: int) -> bool:
        """Whether the agent was in the way of somebody who has unmounted."""
        is_told = self._mount.holds_agent and status == -signal.SIGTERM
        return is_told and ends_within(self._server.fd, _UNMOUNTED_SECONDS)

    def _leave(self) -> None:
        """A signal: unmount, or the second time end it however it is used."""
        if self._is_leaving:
            self._server.kill()
            return
        # Before the agent's end is seen: it is not to be started again.
        self._is_leaving = True
        if self._mount.holds_agent:
            self._agent.have_end(_UNMOUNTED_SECONDS)
        where = os.fsdecode(self._where() or self._mount.paths.target)
        try:
            self._umount()
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            try:
                self._umount(lazy=True)
                how = "is still in use: it is detached, and ends with its last user"
            except OSError as stays:
                how = f"cannot be unmounted: {stays.strerror}"
            log.warning("%s %s (interrupt again to end it now)", where, how)

    def _where(self) -> bytes | None:
        """Where the mount is by now, or None if it is gone."""
        place = self._mount.place
        entry = place.find() if place is not None else None
        return entry.mount_point if entry is not None else None

    def _umount(self, *, lazy: bool = False) -> None:
        """Takes the mount away.  Raises OSError as umount(2) does."""
        if self._mount.place is not None:
            self._mount.place.unmount(mounts.MNT_DETACH if lazy else 0)

    def _finish(self) -> int:
        """The server has ended, or will: take away what is left."""
        code = self._server.wait()
        is_left = not self._take_away()
        self._agent.end()
        self._reap()
        if code and not self._is_leaving:
            log.error("the server ended unexpectedly (%s)", ending(code))
        return 1 if is_left or (code and not self._is_leaving) else 0

    def _take_away(self) -> bool:
        """A mount whose server has ended, if it is there still; whether it is not any more."""
        place = self._mount.place
        try:
            if place is not None:
                place.unmount_dead()
        except OSError as error:
            if error.errno == errno.EINVAL:
                return True
            where = os.fsdecode(self._where() or self._mount.paths.target)
            log.error("%s is left without a server: %s", where, error.strerror)
            return False
        return True

    def _reap(self) -> None:
        self._server.close()
        self._agent.close()
        if self._guard is not None:
            self._guard.wait()
        self._mount.close()


def keep_last_words() -> None:
    """Whatever kills this process by a fault of its own, its threads are in the log."""
    # Where there is nobody to be told, on no descriptor 2, there is nothing to keep.
    with suppress(OSError, ValueError, RuntimeError, AttributeError):
        faulthandler.enable()


def _share_a_cpu(paths: Paths) -> None:
    """Keeps server and agent on one CPU, one or another for each mount.

    They take turns, so a second CPU gains nothing, and to wake the other one up on
    another CPU costs more than what it then does.
    """
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[zlib.crc32(paths.target) % len(cpus)]})
