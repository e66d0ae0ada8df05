"""Mounts, starts server and agent, watches over them, and unmounts.

    checked -> server forked -> mounted -> agent started -> ready -> ... -> unmounted

The supervisor stays in the host's mount namespace, where the mount is.  The server is a
fork of it, the agent a program of its own.  Whatever ends first decides:

    the mount is gone      (umount, fusermount3 -u) the agent lets go of its clone, the
                           server's connection ends, and so does the supervisor
    a signal               the supervisor unmounts, and waits for the above
    the agent dies         it is started again
    another agent          (``farwatch agent MNT``) has the mount until it ends; one of ours
                           stands by
    the server dies        nothing can answer any more: the mount is taken away
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from farwatch.abi.fsnotify import Dialect
from farwatch.agent.endings import Status
from farwatch.linux import mounts
from farwatch.mounting.checks import Paths, mounted_at
from farwatch.mounting.server import MAX_WRITE, Inherited, Unservable, serve
from farwatch.serving.refused import Refused
from farwatch.session.settings import DIALECTS
from farwatch.sources.fanotify import FanotifySource, NoSource
from farwatch.transports.devfuse import FSTYPE, DevFuse

log = logging.getLogger(__name__)

_READY = b"ready"
_READY_SECONDS = 30.0
_AGENT_RESTART_SECONDS = 0.2

_REASONS = {
    errno.EBUSY: "it is in use as a mount already",
    errno.EPERM: "mounting is not permitted here (CAP_SYS_ADMIN is needed)",
    errno.ENODEV: "the kernel has no FUSE",
}


class Supervisor:
    """One mount, from its making to its end."""

    def __init__(self, paths: Paths, fsnotify: frozenset[Dialect] = DIALECTS) -> None:
        """``fsnotify`` are the dialects in which the kernel may keep its own marks."""
        self._paths = paths
        self._fsnotify = fsnotify
        self._server = 0
        self._server_fd = -1
        self._agent: subprocess.Popen[bytes] | None = None
        self._agent_fd = -1
        self._ready_fd = -1
        self._is_leaving = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """Mounts and stays until the end; the exit status.

        ``on_ready`` is called when the mount answers and remote events are delivered.
        Raises Refused if that cannot be, with nothing left behind.
        """
        _share_a_cpu(self._paths)
        with _signals() as wakeup:
            try:
                self._start()
                self._await_ready(wakeup)
            except BaseException:
                self._abandon()
                raise
            if self._is_leaving:
                return self._finish()
            on_ready()
            return self._watch(wakeup)

    # Starting --------------------------------------------------------------------

    def _start(self) -> None:
        source_path, target = self._paths
        src_fd = os.open(source_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                source = FanotifySource.open(src_fd)
            except NoSource as error:
                raise Refused(
                    f"changes there cannot be watched: {error.strerror}", source_path
                ) from None
            tree = mounts.open_tree(src_fd, b"", mounts.OPEN_TREE_CLONE)
        finally:
            os.close(src_fd)
        try:
            with DevFuse(MAX_WRITE) as device, source:
                self._fork_server(Inherited(device, source, tree, self._fsnotify))
                try:
                    device.mount(source_path, target, 0)
                except OSError as error:
                    reason = _REASONS.get(error.errno or 0, error.strerror or "failed")
                    raise Refused(f"cannot mount: {reason}", target) from None
        except OSError as error:
            raise Refused(f"cannot open /dev/fuse: {error.strerror}") from None
        finally:
            os.close(tree)
        self._start_agent()

    def _fork_server(self, inherited: Inherited) -> None:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        self._server = os.fork()
        if self._server == 0:
            os.close(ready_read)
            _serve_and_exit(inherited, ready_write)
        os.close(ready_write)
        self._ready_fd = ready_read
        self._server_fd = os.pidfd_open(self._server)

    def _start_agent(self, *options: str) -> None:
        if self._agent_fd >= 0:
            os.close(self._agent_fd)
        # -P: a directory named farwatch where we were started is not our program.
        command = [sys.executable, "-P", "-m", "farwatch.agent", "--quiet", *options]
        command.append(os.fsdecode(self._paths.target))
        self._agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )
        self._agent_fd = os.pidfd_open(self._agent.pid)

    def _await_ready(self, wakeup: int) -> None:
        poll = select.poll()
        for fd in (self._ready_fd, self._agent_fd, wakeup):
            poll.register(fd, select.POLLIN)
        ready = poll.poll(_READY_SECONDS * 1000)
        fds = {fd for fd, _ in ready}
        if wakeup in fds:
            self._leave()
        elif self._ready_fd in fds:
            self._hear_server()
        elif self._agent_fd in fds:
            raise Refused("the agent ended while starting", remedy="see its messages")
        else:
            raise Refused(f"the mount was not ready within {_READY_SECONDS:.0f} s")

    def _hear_server(self) -> None:
        """The server's first words: that it is ready, or why it cannot be."""
        words = os.read(self._ready_fd, 4096)
        if not words:
            raise Refused("the server ended while starting", remedy="see its messages")
        if words != _READY:
            raise Refused(words.decode(errors="replace"))

    def _abandon(self) -> None:
        """Nothing came of it: leave no mount and no process."""
        for pid in (self._agent.pid if self._agent else 0, self._server):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._server_fd >= 0 and mounted_at(self._paths.target) == FSTYPE:
            with suppress(OSError):
                mounts.umount(self._paths.target, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        self._reap()

    # Watching over ---------------------------------------------------------------

    def _watch(self, wakeup: int) -> int:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self._server_fd, select.POLLIN)
        poll.register(self._agent_fd, select.POLLIN)
        agent_fd = self._agent_fd
        while True:
            fds = {fd for fd, _ in poll.poll()}
            if self._server_fd in fds:
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
        assert self._agent is not None
        status = self._agent.wait()
        if self._is_leaving or mounted_at(self._paths.target) != FSTYPE:
            return -1
        if status == Status.REPLACED:
            # To take over in turn would be to go on like that for ever.
            log.warning("another agent has taken over; starting one that stands by")
            self._start_agent("--standby")
            return self._agent_fd
        log.warning("the agent ended (status %d); starting another", status)
        if _ends_within(self._server_fd, _AGENT_RESTART_SECONDS):
            return -1
        self._start_agent()
        return self._agent_fd

    def _leave(self) -> None:
        """A signal: unmount, or the second time end it however it is used."""
        if self._is_leaving:
            os.kill(self._server, signal.SIGKILL)
            return
        self._is_leaving = True
        target = self._paths.target
        try:
            mounts.umount(target, mounts.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            mounts.umount(target, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
            log.warning(
                "%s is still in use: it is detached, and ends with its last user"
                " (interrupt again to end it now)",
                os.fsdecode(target),
            )

    def _finish(self) -> int:
        """The server has ended, or will: take away what is left."""
        _, status = os.waitpid(self._server, 0)
        self._server = 0
        code = os.waitstatus_to_exitcode(status)
        if mounted_at(self._paths.target) == FSTYPE:
            with suppress(OSError):
                mounts.umount(self._paths.target, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        if self._agent is not None:
            try:
                self._agent.wait(5)
            except subprocess.TimeoutExpired:
                self._agent.kill()
        self._reap()
        if code and not self._is_leaving:
            log.error("the server ended unexpectedly (status %d)", code)
            return 1
        return 0

    def _reap(self) -> None:
        if self._server:
            os.waitpid(self._server, 0)
            self._server = 0
        if self._agent is not None:
            self._agent.wait()
        for fd in (self._server_fd, self._agent_fd, self._ready_fd):
            if fd >= 0:
                os.close(fd)
        self._server_fd = self._agent_fd = self._ready_fd = -1


def _serve_and_exit(inherited: Inherited, ready_fd: int) -> None:
    """The forked server: never returns."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        serve(inherited, lambda: _say(ready_fd, _READY))
        status = 0
    except Unservable as error:
        _say(ready_fd, str(error).encode())
    except Exception:
        log.exception("the server failed")
    finally:
        logging.shutdown()
        os._exit(status)


def _say(ready_fd: int, words: bytes) -> None:
    os.write(ready_fd, words)
    os.close(ready_fd)


def _share_a_cpu(paths: Paths) -> None:
    """Keeps server and agent on one CPU, one or another for each mount.

    They take turns, so a second CPU gains nothing, and to wake the other one up on
    another CPU costs more than what it then does.
    """
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[zlib.crc32(paths.target) % len(cpus)]})


def _ends_within(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable when a signal asks to end."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    old_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
