"""For how long the client's kernel may believe what it is told, and what it is to doubt.

What is cached of names and attributes is set right by replays, so it may be believed for long
while an agent does those.  Where the transport can notify (``is_coherent``) that goes for
names that are not there and for files as well, and what no replay sets right, or not in time,
is doubted (doubts.py):

    a replay     that was not done: what it was about.
    no agent     or one that does not get on for ``LATE_SECONDS``: all that waits to be
                 replayed; until it gets on again nothing is believed for long.
    a file       that somebody has open for writing may change without any event: it is
                 believed for ``FILE_SECONDS`` at a time, from the moment it is opened.
    a gap        in what is heard: everything.

A change that the client's kernel makes, by itself or by a replay, makes attributes outdated that
somebody may be told at this moment.

Called with the view's lock held.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from stat import S_ISREG

from farwatch.export.nodes import Node
from farwatch.session.doubts import Doubts, Name
from farwatch.session.inodes import differs
from farwatch.session.replay import CHANGES_CACHE, Replay
from farwatch.session.settings import FILE_SECONDS, Caching

LATE_SECONDS = 1.0
"""How long what waits to be replayed may be believed to be as it was."""
_FSID = 8
"""The first bytes of a key: the file system."""
_MOST_ABSENT = 1 << 16
_TWICE = 2
"""An answer on its way may be taken in after what it says was doubted: once more, later."""


class Belief:
    """See the top of the file."""

    def __init__(self, caching: Caching, wake: Callable[[], None] = lambda: None) -> None:
        """``wake`` is called when there is something to doubt, or may soon be."""
        self._caching = caching
        self._wake = wake
        self.is_coherent = caching.coherent
        self.doubts = Doubts(wake)
        self.is_written: Callable[[Node], bool] = lambda node: False
        """Whether a file may change without any event: somebody has it open for writing."""
        self.unheard: set[bytes] = set()
        """First bytes of the keys of nodes of which nothing is heard: none is believed for long."""
        self.is_kept_right = False
        """Whether an agent keeps what is cached right, and gets on."""
        self._has_agent = self._is_late = self._is_looked_at = False
        self._expected: dict[Replay, int] = {}
        """Replays on their way, in order, each with how often it has been doubted."""
        self._progress = 0.0
        self._absent: dict[Name, None] = {}
        """Names that the client believes for long not to be there."""
        self._choose_seconds()

    # For how long ----------------------------------------------------------------

    def replays(self, *, by_agent: bool) -> None:
        """Whether an agent keeps what is cached right, from now on."""
        self._has_agent = by_agent
        self._choose_seconds()

    def _choose_seconds(self) -> None:
        caching = self._caching
        self.is_kept_right = is_kept_right = self._has_agent and not self._is_late
        self.seconds = caching.replayed if is_kept_right else caching.seconds
        """For how long a name is believed, where changes are heard."""
        self._file_seconds = min(self.seconds, FILE_SECONDS)
        self._absent_seconds = self.seconds if is_kept_right and self.is_coherent else 0

    def name_seconds(self, node: Node) -> int:
        """For how many seconds the client may believe that a name holds this node."""
        if self.unheard and node.key[:_FSID] in self.unheard:
            return self._caching.seconds
        return self.seconds

    def attr_seconds(self, node: Node) -> int:
        """For how many seconds the client may believe the attributes that it is told."""
        if self.unheard and node.key[:_FSID] in self.unheard:
            return min(self._caching.seconds, FILE_SECONDS)
        if S_ISREG(node.mode) and (not self.is_coherent or self.is_written(node)):
            return self._file_seconds
        node.believed = True
        return self.seconds

    def absent_seconds(self, directory: Node, name: bytes) -> int:
        """For how many seconds the client may believe that there is no such name."""
        if self.unheard and directory.key[:_FSID] in self.unheard:
            return 0
        if self._absent_seconds:
            at = (directory.id, name)
            if len(self._absent) >= _MOST_ABSENT:
                self.doubts.names(self._absent)
                self._absent.clear()
            self._absent[at] = None
        return self._absent_seconds

    def took_for_absent(self, directory: Node, name: bytes) -> bool:
        """Whether the client may believe for long that there is no such name; no more now.

        Of such a name its kernel does not ask when the agent uses it, unless to create it.
        """
        at = (directory.id, name)
        if at not in self._absent:
            return False
        del self._absent[at]
        return True

    # What is doubtful ------------------------------------------------------------

    def opened(self, node: Node, status: os.stat_result) -> None:
        """The client has opened a file, which is so now: what it was told must be that.

        Of what it writes by itself the server hears nothing, nor of what others have mapped.
        """
        if self.is_written(node) or differs(node.attr, status):
            self.doubt(node)

    def doubt(self, node: Node) -> None:
        """A node may have become another than the client was told, and no event says so."""
        if self.is_coherent and node.believed:
            self.doubts.node(node)

    def outdated(self, *nodes: Node) -> None:
        """The request that is being answered has changed these, and its reply does not say how.

        Not called for what the client's kernel takes as news by itself: what it has made, or has
        counted a link less of.
        """
        if self.is_coherent:
            for node in nodes:
                if node.believed:
                    self.doubts.outdated(node)

    def distrust(self, nodes: Iterable[Node]) -> None:
        """There was a gap in what is heard: any of these, and of their names, may be another."""
        if self.is_coherent:
            self.doubts.names(self._absent)
            self._absent.clear()
            self.doubts.everything(nodes)

    def _doubt_replay(self, replay: Replay) -> None:
        """What a replay is about is not what the client believes."""
        for directory, name in replay.names():
            self.doubts.name(directory, name)
        for node in replay.nodes():
            self.doubts.node(node)

    def look_at_progress(self) -> bool:
        """Doubts what waits to be replayed for too long; whether to look again in a while."""
        self._is_looked_at = bool(self._expected) and self.is_coherent
        self._is_late = self._is_looked_at and time.monotonic() - self._progress > LATE_SECONDS
        self._choose_seconds()
        if self._is_late:
            for replay, doubted in self._expected.items():
                if doubted < _TWICE:
                    self._expected[replay] = doubted + 1
                    self._doubt_replay(replay)
        return self._is_looked_at

    # What is on its way ----------------------------------------------------------

    def expect(self, replay: Replay) -> None:
        """A replay is on its way."""
        if not self._expected:
            self._progress = time.monotonic()
        self._expected[replay] = 0
        if self.is_coherent and not self._is_looked_at:
            self._is_looked_at = True
            self._wake()

    @property
    def last_expected(self) -> Replay | None:
        """The last of the replays that are on their way."""
        return next(reversed(self._expected), None)

    def is_expected(self, replay: Replay | None) -> bool:
        """Whether a replay is on its way still."""
        return replay in self._expected

    def arrived(self, replay: Replay) -> None:
        """A replay is over, done or not."""
        self._expected.pop(replay, None)
        self._progress = time.monotonic()
        if self.is_coherent and not replay.done and replay.op in CHANGES_CACHE:
            self._doubt_replay(replay)
