"""The server's end of the control channel: HELLO, WAIT, WATCH, PLACE (see abi/control.py).

    nobody --HELLO (root of the client)--> registered --WAIT--> awaited
       ^                                       |  ^               |
       +------- the descriptor is closed ------+  +---- batch ----+

A second HELLO on the same descriptor registers another thread of the same agent; one on
another descriptor is a new agent, which takes over, or is refused (EBUSY) if it asked to be.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from farwatch.abi import control, fuse
from farwatch.abi.control import HelloFlag, Malformed
from farwatch.abi.steps import BatchFlag
from farwatch.events import Mask
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.agents import KnownThreads
from farwatch.session.delivery import Delivery
from farwatch.session.interest import Interest
from farwatch.session.planning import Planner
from farwatch.session.request import Payload, Request, fail
from farwatch.session.settings import Marks, Settings
from farwatch.session.view import View


class Channel:
    """Who the agent is, and what it says.  Called with the view's lock held."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        delivery: Delivery,
        interest: Interest,
        planner: Planner,
        known: KnownThreads,
        path_of: Callable[[Node], tuple[int, bytes]],
    ) -> None:
        """``known`` are the threads that ask without a mark; ``path_of`` is of standing.py."""
        self._view = view
        self._settings = settings
        self._delivery = delivery
        self._interest = interest
        self._planner = planner
        self._known = known
        self._path_of = path_of
        self._fh: int | None = None
        self._threads: set[int] = set()
        self._has_waited = False

    @property
    def is_ready(self) -> bool:
        """Whether an agent is at work, and has said what is watched.

        It need not be waiting at this moment: while much is changed it never is.
        """
        return self._has_waited and self._interest.scans > 0

    def is_agent(self, thread: int) -> bool:
        """Whether a thread of the client is registered."""
        return thread in self._threads

    def ioctl(self, request: Request) -> Payload | None:
        """IOCTL: ENOTTY for all that is not of the control channel."""
        fh, flags, command, _, in_size, _ = fuse.IOCTL_IN.unpack_from(request.body)
        data = request.body[fuse.IOCTL_IN.size : fuse.IOCTL_IN.size + in_size]
        if request.node != ROOT_ID or not flags & fuse.IOCTL_DIR:
            raise fail(errno.ENOTTY)
        try:
            if command == control.HELLO:
                return self._hello(request, fh, data)
            if command == control.WAIT:
                return self._wait(request, fh, data)
            if command == control.WATCH:
                return self._watch(fh, data)
            if command == control.PLACE:
                return self._place(request, fh, data)
        except Malformed as error:
            raise fail(errno.EINVAL, str(error)) from None
        raise fail(errno.ENOTTY)

    def closed(self, fh: int) -> None:
        """A directory's handle is closed: if it was the agent's, the agent is gone."""
        if fh == self._fh:
            self._leave()

    def _hello(self, request: Request, fh: int, data: memoryview) -> Payload:
        version, flags = control.HELLO_IN.unpack_from(data)
        if version != control.VERSION:
            raise fail(errno.EPROTO, f"agent speaks version {version}")
        # A request without a thread id (another pid namespace) would stand for anybody.
        if request.uid != self._settings.owner or request.pid == 0:
            raise fail(errno.EPERM)
        is_new = fh != self._fh
        if is_new and self._fh is not None and flags & HelloFlag.IF_NONE:
            raise fail(errno.EBUSY, "another agent is registered")
        if self._is_by_thread:
            self._know(request.pid, is_new=is_new)
        if is_new:
            if self._fh is not None:
                self._leave()
            self._fh = fh
        self._threads.add(request.pid)
        self._view.belief.replays(by_agent=True)
        hello = control.Hello(
            control.VERSION,
            control.NO_UID if self._is_by_thread else control.FIRST_UID,
            self._settings.generation,
            self._settings.hidden_name,
        )
        return answered(control.encode_hello(hello))

    @property
    def _is_by_thread(self) -> bool:
        return self._settings.marks is Marks.BY_THREAD

    def _know(self, thread: int, *, is_new: bool) -> None:
        """From now on nothing that the thread does is a real operation, until its end."""
        if not is_new and thread not in self._threads:
            raise fail(errno.EPERM, "steps are done in order, by one thread")
        try:
            self._known.add(thread)
        except OSError:
            raise fail(errno.EPERM, "not the first thread of a process") from None

    def _wait(self, request: Request, fh: int, data: memoryview) -> Payload | None:
        self._must_be_registered(fh)
        if not self.is_agent(request.pid):
            raise fail(errno.EPERM)
        number, failures, late = control.decode_wait(data)
        self._has_waited = True
        self._delivery.wait(request.unique, number, failures, late)
        answer = self._delivery.next_answer()
        return answered(answer[1]) if answer is not None else None

    def _watch(self, fh: int, data: memoryview) -> Payload:
        self._must_be_registered(fh)
        interest = self._interest
        before = interest.reading
        if interest.learn(*control.decode_watches(data)):
            self._view.known.watch(interest.watched())
        if before & ~interest.reading & Mask.OPEN:
            self._delivery.ask(BatchFlag.RELEASE)
            self._planner.release()
        return answered(b"")

    def _place(self, request: Request, fh: int, data: memoryview) -> Payload:
        self._must_be_registered(fh)
        if not self.is_agent(request.pid):
            raise fail(errno.EPERM)
        node = self._view.nodes.by_id.get(control.PLACE_IN.unpack_from(data)[0])
        if node is None:
            raise fail(errno.ESTALE)
        return answered(control.encode_place(*self._path_of(node)))

    def _must_be_registered(self, fh: int) -> None:
        if fh != self._fh:
            raise fail(errno.EPERM, "no HELLO on this descriptor")

    def _leave(self) -> None:
        self._fh = None
        self._has_waited = False
        self._threads.clear()
        self._delivery.restart()
        self._interest.forget()
        self._planner.agent_left()
        self._view.belief.replays(by_agent=False)


def answered(data: bytes) -> bytes:
    """The payload of an IOCTL's reply that gives these bytes to the caller."""
    return fuse.IOCTL_OUT.pack(0, 0, 0, 0) + data
