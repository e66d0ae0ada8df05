"""Mounts, starts server and agent, watches over them, and unmounts.

    checked -> server forked -> mounted -> agent started -> ready -> ... -> unmounted

The supervisor stays in the host's mount namespace, where the mount is.  The server is a
fork of it, the agent a program of its own.  Whatever ends first decides:

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
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from farwatch.agent.endings import Status
from farwatch.linux import mounts
from farwatch.mounting import guard
from farwatch.mounting.checks import Paths
from farwatch.mounting.hearing import source_of
from farwatch.mounting.options import DEFAULTS, Options
from farwatch.mounting.place import Place
from farwatch.mounting.server import MAX_WRITE, Inherited, Unservable, serve
from farwatch.mounting.submounts import HostSubmounts
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import DevFuse

log = logging.getLogger(__name__)

_READY = b"ready"
_READY_SECONDS = 90.0
_AT_ONCE_SECONDS = 0.05
"""An agent that ends because the server does, ends before it by no more than this."""
_GONE_SECONDS = 1.0
"""The same where the agent has said so itself."""
_LIFE_SECONDS = 10.0
"""An agent that has lived so long had started well: the next one is started at once."""
_SHORT_LIVES = 20
"""So many times in a row it is started at once nevertheless."""
_LONGEST_PAUSE = 0.8

_REASONS = {
    errno.EBUSY: "it is in use as a mount already",
    errno.EPERM: "mounting is not permitted here (CAP_SYS_ADMIN is needed)",
    errno.ENODEV: "the kernel has no FUSE",
}


class Supervisor:
    """One mount, from its making to its end."""

    def __init__(self, paths: Paths, options: Options = DEFAULTS) -> None:
        self._paths = paths
        self._options = options
        self._place: Place | None = None
        self._server = 0
        self._server_fd = -1
        self._agent: subprocess.Popen[bytes] | None = None
        self._agent_fd = -1
        self._agent_since = 0.0
        self._short_lives = 0
        self._wakeup = -1
        self._guard: subprocess.Popen[bytes] | None = None
        self._submounts: HostSubmounts | None = None
        self._ready_fd = -1
        self._is_leaving = False

    def run(self, on_ready: Callable[[], None]) -> int:
        """Mounts and stays until the end; the exit status.

        ``on_ready`` is called when the mount answers and remote events are delivered.
        Raises Refused if that cannot be, with nothing left behind.
        """
        _share_a_cpu(self._paths)
        keep_last_words()
        with _signals() as wakeup:
            self._wakeup = wakeup
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
            source = source_of(self._options.events, src_fd, source_path)
            tree = self._clone(src_fd)
            attributes = self._options.over(mounts.attributes_of(src_fd))
            self._submounts = submounts = HostSubmounts(self._paths, src_fd)
        finally:
            os.close(src_fd)
        arrived = submounts.first()
        try:
            with DevFuse(MAX_WRITE) as device, source:
                self._fork_server(
                    Inherited(device, source, tree, self._options, arrived, submounts.servers)
                )
                try:
                    number = device.mount(
                        source_path, target, attributes, synchronous=self._options.synchronous
                    )
                except OSError as error:
                    reason = _REASONS.get(error.errno or 0, error.strerror or "failed")
                    raise Refused(f"cannot mount: {reason}", target) from None
                self._place = Place.numbered(number)
        except OSError as error:
            raise Refused(f"cannot open /dev/fuse: {error.strerror}") from None
        finally:
            for fd in (tree, *(each.tree for each in arrived)):
                os.close(fd)
        submounts.start(self._server)
        if self._options.auto_unmount:
            self._guard = guard.start(self._server_fd, self._place)
        self._start_agent()

    def _clone(self, src_fd: int) -> int:
        """What the server works in: the mount that SRC is on, from SRC down.

        Reading through MNT changes the access times of SRC's files as is asked of MNT.
        """
        tree = mounts.open_tree(src_fd, b"", mounts.OPEN_TREE_CLONE)
        if self._options.named & mounts.MOUNT_ATTR_ATIME:
            try:
                add = self._options.attributes & mounts.MOUNT_ATTR_ATIME
                mounts.mount_setattr(tree, add, mounts.MOUNT_ATTR_ATIME, recursive=False)
            except OSError:
                os.close(tree)
                raise
        return tree

    def _serve(self, inherited: Inherited, on_ready: Callable[[], None]) -> None:
        """In the server's process, until the mount's end."""
        serve(inherited, on_ready)

    def _fork_server(self, inherited: Inherited) -> None:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        self._server = os.fork()
        if self._server == 0:
            os.close(ready_read)
            if self._submounts is not None:
                self._submounts.leave()
            _serve_and_exit(lambda on_ready: self._serve(inherited, on_ready), ready_write)
        os.close(ready_write)
        self._ready_fd = ready_read
        self._server_fd = os.pidfd_open(self._server)

    def _start_agent(self, *options: str) -> None:
        if self._agent_fd >= 0:
            os.close(self._agent_fd)
        # -P: a directory named farwatch where we were started is not our program.
        command = [sys.executable, "-P", "-m", "farwatch.agent", "--quiet", *options]
        command.append(os.fsdecode(self._where() or self._paths.target))
        self._agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )
        self._agent_fd = os.pidfd_open(self._agent.pid)
        self._agent_since = time.monotonic()

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
        with suppress(OSError):
            self._umount(lazy=True)
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
        if self._is_leaving or self._where() is None:
            return -1
        if status == Status.REPLACED:
            # To take over in turn would be to go on like that for ever.
            log.warning("another agent has taken over; starting one that stands by")
            self._start_agent("--standby")
            return self._agent_fd
        pause = self._pause_before_another(status)
        after = f" in {pause:.1f} s" if pause > _AT_ONCE_SECONDS else ""
        log.warning("the agent ended (%s); starting another%s", how(status), after)
        if any_within((self._server_fd, self._wakeup), pause):
            return -1
        self._start_agent()
        return self._agent_fd

    def _pause_before_another(self, status: int) -> float:
        """Seconds, in which the server may end as well, or a signal come."""
        if time.monotonic() - self._agent_since >= _LIFE_SECONDS:
            self._short_lives = 0
        self._short_lives += 1
        if status == Status.GONE:
            return _GONE_SECONDS
        if self._short_lives <= _SHORT_LIVES:
            return _AT_ONCE_SECONDS
        more = min(self._short_lives - _SHORT_LIVES, 10)
        return float(min(_AT_ONCE_SECONDS * 2**more, _LONGEST_PAUSE))

    def _leave(self) -> None:
        """A signal: unmount, or the second time end it however it is used."""
        if self._is_leaving:
            os.kill(self._server, signal.SIGKILL)
            return
        self._is_leaving = True
        where = os.fsdecode(self._where() or self._paths.target)
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
        entry = self._place.find() if self._place is not None else None
        return entry.mount_point if entry is not None else None

    def _umount(self, *, lazy: bool = False) -> None:
        """Takes the mount away.  Raises OSError as umount(2) does."""
        if self._place is not None:
            self._place.unmount(mounts.MNT_DETACH if lazy else 0)

    def _finish(self) -> int:
        """The server has ended, or will: take away what is left."""
        _, status = os.waitpid(self._server, 0)
        self._server = 0
        code = os.waitstatus_to_exitcode(status)
        is_left = False
        if (where := self._where()) is not None:
            try:
                self._umount(lazy=True)
            except OSError as error:
                reason = error.strerror
                log.error("%s is left without a server: %s", os.fsdecode(where), reason)
                is_left = True
        if self._agent is not None:
            try:
                self._agent.wait(5)
            except subprocess.TimeoutExpired:
                self._agent.kill()
        self._reap()
        if code and not self._is_leaving:
            log.error("the server ended unexpectedly (%s)", how(code))
        return 1 if is_left or (code and not self._is_leaving) else 0

    def _reap(self) -> None:
        if self._server:
            os.waitpid(self._server, 0)
            self._server = 0
        if self._agent is not None:
            self._agent.wait()
        if self._guard is not None:
            self._guard.wait()
        if self._submounts is not None:
            self._submounts.close()
        for fd in (self._server_fd, self._agent_fd, self._ready_fd):
            if fd >= 0:
                os.close(fd)
        self._server_fd = self._agent_fd = self._ready_fd = -1


def _serve_and_exit(serve: Callable[[Callable[[], None]], None], ready_fd: int) -> None:
    """The forked server: never returns."""
    status = 1
    try:
        os.setsid()
        threading.excepthook = _end_with_thread
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        serve(lambda: _say(ready_fd, _READY))
        status = 0
    except Unservable as error:
        _say(ready_fd, str(error).encode())
    except Exception:
        log.exception("the server failed")
    finally:
        logging.shutdown()
        os._exit(status)


def _end_with_thread(died: threading.ExceptHookArgs) -> None:
    """A server that has lost one of its threads would go on as if nothing was the matter."""
    name = died.thread.name if died.thread is not None else "?"
    if died.exc_value is not None:
        log.critical("the server's thread %s failed", name, exc_info=died.exc_value)
    logging.shutdown()
    os._exit(1)


def keep_last_words() -> None:
    """Whatever kills this process by a fault of its own, its threads are in the log."""
    # Where there is nobody to be told, on no descriptor 2, there is nothing to keep.
    with suppress(OSError, ValueError, RuntimeError, AttributeError):
        faulthandler.enable()


def how(code: int) -> str:
    """How a process has ended, in words; ``code`` as subprocess gives it."""
    if code >= 0:
        return f"status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


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


def ends_within(pidfd: int, seconds: float) -> bool:
    """Whether a process has ended after this many seconds at most."""
    return any_within((pidfd,), seconds)


def any_within(fds: Iterable[int], seconds: float) -> bool:
    """Whether one of these is readable after this many seconds at most."""
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
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
