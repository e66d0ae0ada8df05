"""One of several clients of a server: whose requests they are, and what it is told.

    request ──> whose is it? ──> session ──> reply        all in the client's own thread,
    feed ──> pipeline ──> session ──> notices             which is the caller for the files

What a client that keeps its own marks has to be told of the time before it changed a name
it is told before the reply.

Nothing that a request says of its caller is believed, unless root sent it.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import KeysView

from farwatch.abi import fsnotify, fsnotify_posted, fuse
from farwatch.abi.fuse import Opcode
from farwatch.events import Key
from farwatch.export.checked import CheckedExport
from farwatch.linux.identity import ROOT, Identity, Who
from farwatch.linux.openers import access_mode
from farwatch.serving.feeds import Feed, client_of, thread_of
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from farwatch.session.replay import is_reserved
from farwatch.session.reply import Reply, failed
from farwatch.session.request import Payload
from farwatch.session.session import Session
from farwatch.session.settings import Settings

_UID_OFFSET = 24
_IDS = struct.Struct("<II")
"""uid and gid in ``fuse_in_header``."""
_NO_ID = 0xFFFF_FFFF
_PLACING = frozenset((fsnotify.MARK, fsnotify_posted.POSTED_OPCODE))
"""What places a watch: what happened before must not be told to it."""
_NO_REPLY = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET))


class Client:
    """Answers one client.  For the thread that has made its feed and its identity.

    ``who`` is whom it acts as; None for root, who acts as whom it says.
    """

    def __init__(
        self,
        mount_fd: int,
        feed: Feed,
        identity: Identity,
        who: Who | None,
        settings: Settings,
    ) -> None:
        """Owns ``mount_fd``, the exported directory."""
        self._feed = feed
        self._identity = identity
        self._who = who
        self._export = CheckedExport(mount_fd, identity)
        modes = self._open_modes()
        self.session = Session(self._export, settings, self._export, modes.mode)
        self._answers: list[Reply] = []
        self._pipeline = Pipeline(
            feed,
            self.session,
            self._export.node_at,
            self._export.place_of,
            modes,
            self._answers.append,
            frozenset((thread_of(feed.client),)),
            client_of,
        )
        self._pipeline.reading = lambda: feed.reading
        feed.known = self._known
        self._identity.become(who or ROOT)

    def _known(self) -> KeysView[Key]:
        # INIT makes another table.
        return self.session.view.nodes.by_key.keys()

    def receive(self, message: memoryview) -> Reply | None:
        """Answers one request, behind what is to be heard before the answer.

        None if it has no answer, or none yet.
        """
        _, opcode, unique, _, uid, gid, *_ = fuse.IN_HEADER.unpack_from(message)
        try:
            self._become(message, uid, gid)
            if opcode in _PLACING:
                self.woken()
        except OSError as error:
            return None if opcode in _NO_REPLY else failed(unique, error.errno or errno.EPERM)
        reply = self.session.receive(message)
        if opcode in self.session.told_first:
            reply = self._told_first(reply)
        elif reply is None and opcode in _PLACING:
            # Something has happened meanwhile, somewhere: hear of that as well.
            self.woken()
        if self.session.reading != self._feed.wanted:
            with self._identity.raised:
                self._feed.want(self.session.reading)
        return reply

    def _told_first(self, reply: Reply | None) -> Reply | None:
        """The reply behind the notifications of what happened before.

        Not more of them than the session keeps; and while the peer does not take them no
        other request of its is looked at.
        """
        before: list[Payload] = []
        with self.session.answering():
            self.woken()
            while (answer := self.next_answer()) is not None:
                before += answer
            while (notice := self.next_notice()) is not None:
                before += notice
        return (b"".join(before), *(reply or ())) if before else reply

    def _become(self, message: memoryview, uid: int, gid: int) -> None:
        """The header and this thread are the caller."""
        if self._who is not None:
            _IDS.pack_into(message, _UID_OFFSET, self._who.uid, self._who.gid)
            return
        if is_reserved(uid) or _NO_ID in (uid, gid):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self._identity.become(Who(uid, gid))

    def next_answer(self) -> Reply | None:
        """The answer to a request that was parked, if there is one now."""
        if self._answers:
            return self._answers.pop(0)
        return self.session.answer()

    def next_notice(self) -> Reply | None:
        """The next notification, if there is one."""
        return self.session.next_notice()

    def woken(self) -> None:
        """Hear of everything that has happened."""
        self._feed.calm()
        is_due = self._pipeline.is_due
        with self._identity.raised:
            self._pipeline.deliver(flush=is_due)
            self._pipeline.keep_up()

    def fileno(self) -> int:
        """Readable when something has happened."""
        return self._feed.fileno()

    @property
    def due(self) -> float | None:
        """When ``woken`` is to be called in any case (``time.monotonic``)."""
        pipeline = self._pipeline
        dues = (self.session.due, pipeline.due, pipeline.keep_up_due)
        whens = [when for when in dues if when is not None]
        return min(whens, default=None)

    @property
    def has_lost(self) -> bool:
        """Whether notifications were dropped because nobody takes them."""
        return self.session.has_lost

    def _open_modes(self) -> OpenModes:
        export = self._export

        def found(thread: int, node: Key) -> int | None:
            try:
                status = export.getattr(node)
            except OSError:
                return None
            # Another client's thread: its files are this process's.
            process = os.getpid() if thread < 0 else thread
            return access_mode(process, status.st_dev, status.st_ino)

        return OpenModes(found)

    def close(self) -> None:
        """Close everything that the client has left open; the feed and identity stay."""
        self.session.close()
        self._export.close()
