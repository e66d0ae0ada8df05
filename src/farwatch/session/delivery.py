"""What is to be replayed, on its way to the agent: the queue, and the parked WAIT.

    planned --expect--> queued --batch--> armed --WAIT--> over
                          ^                 |
                          +-----------------+   what is told instead of a step that failed
                                                or was cancelled, and what had to wait for it

The order of what is told of a name is kept: the agent stops at a step about names that
fails, and what follows it goes back to the queue behind what is told in its place.

One batch is under way at a time.  The server never waits for an agent: while none is
there, or none that gets on, replays queue up.  There is an end to that:

    queueing --more than is kept--> gap --an agent waits--> queueing
                                     the queue is dropped; nothing is planned until what was
                                     known is compared with the disk (resync.py)

Every method is called with the view's lock held; what is to
be sent is returned, never sent from here.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Container, Iterable

from farwatch.abi import control
from farwatch.abi.control import NOT_TRIED, Late
from farwatch.abi.steps import BATCH_ROOM, Op, encode_batch, step_size
from farwatch.session.replay import Replay
from farwatch.session.view import View

_MOST_STEPS = 512
"""Steps in a batch: enough to make the round trip not matter, and few enough that what
is to follow an operation of the client's does not wait long."""

_MOST_WITHOUT_AGENT = 1 << 16
"""Replays that are kept while there is no agent: some tens of MiB."""

_MOST = 1 << 18
"""Replays that are kept for an agent that gets on, but more slowly than things change."""

_FROZEN_SECONDS = 5.0
"""An agent that has had a batch for so long gets on no more than one that is not there."""

_KEEPS = frozenset((Op.PIN, Op.OPEN))
_LETS_GO = frozenset((Op.UNPIN, Op.CLOSE))

log = logging.getLogger(__name__)


class Delivery:
    """The queue of replays of one client."""

    def __init__(
        self,
        view: View,
        armed: dict[int, Replay],
        otherwise: Callable[[Replay, int], list[Replay]],
        longest_wait: float | None = None,
    ) -> None:
        """``longest_wait``: seconds after which an idle WAIT is answered by an empty batch."""
        self._view = view
        self._armed = armed
        self._otherwise = otherwise
        self._queue: deque[Replay] = deque()
        self._batch: list[Replay] = []
        self._late: dict[int, Replay] = {}
        self._number = 0
        self._first = 0
        self._longest_wait = longest_wait
        self._parked: int | None = None
        self._has_agent = False
        self.has_gap = False
        """Whether what was queued was dropped, and is to be made good.  Needs no lock."""
        self.on_gap: Callable[[list[Replay]], list[Replay]] = lambda dropped: []
        """Told what is dropped, and gives what is to be done of it nevertheless."""
        self._has_come = False
        """Whether an agent has asked for more since the gap began."""
        self._handed_over = 0.0
        self._needed = 0
        self._due: float | None = None
        self._interrupted: int | None = None
        self._flags = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._queue and not self._batch

    @property
    def has_answer(self) -> bool:
        """Whether there is something to say to an agent that waits for it."""
        if self._interrupted is not None:
            return True
        return self._parked is not None and bool(self._queue or self._flags or self._is_due)

    @property
    def due(self) -> float | None:
        """When a parked WAIT is to be answered whatever happens (``time.monotonic``)."""
        return self._due if self._parked is not None else None

    @property
    def _is_due(self) -> bool:
        return self._due is not None and time.monotonic() >= self._due

    def add(self, replays: Iterable[Replay], *, is_needed: bool = False) -> None:
        """Queue replays that ``View.expect`` has been told of.

        ``is_needed`` are those that make a gap good: they do not make another one.
        """
        before = len(self._queue)
        self._queue.extend(replays)
        if is_needed:
            self._needed += len(self._queue) - before
        elif len(self._queue) - self._needed > _MOST_WITHOUT_AGENT and self._must_give_up():
            self._give_up()

    def _must_give_up(self) -> bool:
        if not self._has_agent or len(self._queue) - self._needed > _MOST:
            return True
        is_frozen = time.monotonic() - self._handed_over > _FROZEN_SECONDS
        return self._parked is None and is_frozen

    def _give_up(self) -> None:
        """Nobody comes to replay it: memory stays bounded, and the gap is remembered."""
        log.warning("no agent delivers events: %d are held back, to be compared", len(self._queue))
        queued = [each for replay in self._queue for each in (replay, *replay.instead)]
        self._queue = deque()
        self._needed = 0
        self.has_gap = True
        self._has_come = self._parked is not None
        unheard = {replay.step.token for replay in queued if replay.op in _KEEPS}
        dropped = [replay for replay in queued if not _lets_go(replay, unheard)]
        self._queue.extend(replay for replay in queued if _lets_go(replay, unheard))
        closing = self.on_gap(dropped)
        for replay in dropped:
            for node, count in replay.links_gained():
                node.unlinks -= count
            self._view.arrived(replay)
        for replay in closing:
            if _lets_go(replay, unheard):
                self._queue.append(replay)
            else:
                self._view.arrived(replay)

    @property
    def can_make_good(self) -> bool:
        """Whether there is a gap, and an agent that has nothing else to do.  Needs no lock."""
        return self.has_gap and self._has_come and not self._batch

    def make_good(self) -> None:
        """The gap is at its end: what is planned from now on is told."""
        self.has_gap = False

    def ask(self, flags: int) -> None:
        """Set flags of the next batch, which may be an empty one."""
        self._flags |= flags

    def next_answer(self) -> tuple[int, bytes] | None:
        """What a parked WAIT is to be answered, if there is anything: unique, message."""
        if self._parked is None or not (self._queue or self._flags or self._is_due):
            return None
        unique = self._parked
        self._parked = None
        return unique, self._next_batch()

    def wait(
        self,
        unique: int,
        number: int,
        failures: list[tuple[int, int]],
        late: Iterable[Late] = (),
    ) -> None:
        """The agent is done with batch ``number`` and waits for the next one.

        ``late`` are steps of earlier batches that somebody had held up.
        """
        self._has_agent = self._has_come = True
        if self._batch and number == self._number:
            self._finish(dict(failures))
        for sequence, error in late:
            replay = self._late.pop(sequence, None)
            if replay is not None:
                self._disarm(replay)
                self._queue.extendleft(reversed(self._end(replay, error)))
        self._parked = unique
        if self._longest_wait is not None:
            self._due = time.monotonic() + self._longest_wait

    def interrupt(self, unique: int) -> None:
        """A signal is to end a request; if that is the parked WAIT, it is interrupted."""
        if self._parked == unique:
            self._parked = None
            self._interrupted = unique

    def take_interrupted(self) -> int | None:
        """The WAIT that is to be answered EINTR, if there is one."""
        unique, self._interrupted = self._interrupted, None
        return unique

    def restart(self) -> None:
        """A new agent: what the old one had under way is to be done by this one.

        Steps that were done stay done, and so do opens: what a dead agent had open is
        closed.  The others are armed again.  If the old agent is alive and waits, it is
        woken, to find that it is not registered any more.
        """
        self._has_agent = self._has_come = False
        if self._parked is not None:
            self._interrupted = self._parked
        self._view.links.agent_left()
        again = [replay for replay in self._batch if not (replay.done or replay.opened)]
        for replay in self._batch:
            self._disarm(replay)
            if replay.done or replay.opened:
                self._view.arrived(replay)
            replay.looked = 0
        for replay in self._late.values():
            self._disarm(replay)
            self._over(replay)
        self._batch = []
        self._late = {}
        self._queue.extendleft(reversed(again))
        self._parked = None

    def _next_batch(self) -> bytes:
        flags, self._flags = self._flags, 0
        self._number += 1
        room = BATCH_ROOM
        batch = self._batch
        queue = self._queue
        while queue and len(batch) < _MOST_STEPS:
            replay = queue[0]
            if replay.cancelled:
                self._over(queue.popleft())
                queue.extendleft(reversed(replay.instead))
                continue
            room -= step_size(replay.step)
            if room < 0:
                break
            self._arm(queue.popleft())
            batch.append(replay)
        if not queue:
            self._needed = 0
        self._handed_over = time.monotonic()
        sequence = batch[0].sequence if batch else self._first
        return encode_batch(self._number, flags, sequence, (replay.step for replay in batch))

    def _arm(self, replay: Replay) -> None:
        replay.sequence = self._first
        self._armed[self._first] = replay
        self._first = (self._first + 1) % control.SEQUENCES

    def _disarm(self, replay: Replay) -> None:
        if self._armed.get(replay.sequence) is replay:
            del self._armed[replay.sequence]

    def _finish(self, failures: dict[int, int]) -> None:
        batch, self._batch = self._batch, []
        again: list[Replay] = []
        for index, replay in enumerate(batch):
            error = failures.get(index, 0)
            if error == errno.EINPROGRESS:
                self._late[replay.sequence] = replay
                continue
            self._disarm(replay)
            if error == NOT_TRIED:
                again.append(replay)
            else:
                again += self._end(replay, error)
        self._queue.extendleft(reversed(again))

    def _end(self, replay: Replay, error: int) -> list[Replay]:
        """A replay is over; what is to be done in its place if it failed."""
        log.debug("replayed %s: %s", replay, errno.errorcode.get(error, "ok"))
        again = replay.instead
        if error and not replay.cancelled and not replay.done:
            log.info("not replayed: %s: %s", replay, errno.errorcode.get(error, error))
            again = self._otherwise(replay, error)
        self._over(replay)
        return again

    def _over(self, replay: Replay) -> None:
        if not replay.done:
            for node, count in replay.links_gained():
                node.unlinks -= count
                if not replay.cancelled:
                    # Nothing else is going to take the link that was kept for this.
                    node.nlink = max(node.nlink - max(count, 0), 0)
        self._view.arrived(replay)


def _lets_go(replay: Replay, unheard: Container[int]) -> bool:
    """Whether a step closes a descriptor that the agent has: that is not to be dropped."""
    return replay.op in _LETS_GO and replay.step.token not in unheard
