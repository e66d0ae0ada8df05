"""Clients, their sides of the server, a host's program, one disk; stepped by choices.

    host       the host's program does its next operation
    X.begin    client X's program begins its next one
    X.lose     X's connection is lost, and X connects again
    X.work     X's kernel layer does what notifications have left it to do
    X.request  the server takes X's next request
    X.answer   X hears the next answer
    X.notice   X hears the next notification
    X.message  X hears the next of either, where both come one way (``one_way``)
    X.source   X's pipeline delivers what its source has
    X.flush    the same, when its source has been quiet

For each client a model of native inotify hears what the disk does, from the moment in
which the server has taken its watch: ``truth``.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from farwatch.abi.fsnotify import MARK
from farwatch.abi.fuse import Opcode
from farwatch.events import Key
from tests.simulator.client import Client, key_of, mask_of, watching
from tests.simulator.disk import WatchedDisk
from tests.simulator.facts import Fact
from tests.simulator.histories import OnDisk, ops, play
from tests.simulator.native import Native
from tests.simulator.scenario import Part, Scenario
from tests.simulator.scheduler import Choice, Make
from tests.simulator.side import Side

FIRST_THREAD = 1 << 24
"""Above every thread id of a Linux (PID_MAX_LIMIT), so that none of ours is a real one."""
HOST = FIRST_THREAD
_LOCAL = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INIT))
"""What the server answers, or does not, without a look at the disk."""
_READS = frozenset(
    (Opcode.LOOKUP, Opcode.GETATTR, Opcode.READLINK, Opcode.GETXATTR, Opcode.LISTXATTR,
     Opcode.STATFS, Opcode.FLUSH, MARK)
)  # fmt: skip
"""What leaves the disk as it is."""
_HEADER = struct.Struct("<IIQQIIII")
_MARK = struct.Struct("<QII")


class Log(logging.Handler):
    """What the project says at WARNING and above: in a run there is no reason to."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f": {record.exc_info[1]!r}"
        self.lines.append(line)


Check = Callable[["World"], list[str]]
Prepare = Callable[["World"], None]


class World:
    """See the top of the file."""

    def __init__(self, scenario: Scenario, check: Check, prepare: Prepare | None = None) -> None:
        self._scenario = scenario
        self._check = check
        self._stack = ExitStack()
        self.log = Log()
        self.disk = self._stack.enter_context(WatchedDisk())
        self.host = OnDisk(self.disk, HOST)
        self.clients: list[Client] = []
        self.truth: dict[str, Native] = {}
        self._ways: dict[str, deque[tuple[bool, bytes]]] = {}
        self._marking: dict[tuple[str, int], tuple[str, Key, int]] = {}
        self._host = deque(ops(scenario.host))
        self.facts: list[Fact] = []
        self._prepare = prepare

    # From the beginning to the end

    def __enter__(self) -> World:
        logger = logging.getLogger("farwatch")
        logger.addHandler(self.log)
        self._stack.callback(logger.removeHandler, self.log)
        self._stack.callback(self.host.close)
        scenario = self._scenario
        play(self.host, ops(scenario.setup))
        for index, part in enumerate(scenario.parts):
            self._join(index, part)
        self.settle()
        for client, part in zip(self.clients, scenario.parts, strict=True):
            client.program.extend(watching(part.watches, part.mask))
            client.program.extend(ops(part.before))
        self.settle()
        play(self.host, ops(scenario.before))
        self.settle()
        for client, part in zip(self.clients, scenario.parts, strict=True):
            # What was before does not count, neither here nor in truth.
            client.clear()
            self.truth[client.name].told.clear()
            client.errors.clear()
            client.program.extend(ops(part.program))
            client.losses = part.losses
        self.facts.clear()
        if self._prepare is not None:
            self._prepare(self)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.side.close()
        self._stack.close()

    def _join(self, index: int, part: Part) -> None:
        number, name = index + 1, "ABCDEFGH"[index]
        side = self._side(number, part)
        client = Client(name, number, part.mode, side, resumes=part.losses > 0)
        self._stack.callback(client.close)
        native = Native(self.whose, self._hears(client))
        self.disk.listeners += [native.hear, side.queue.hear]
        if not self.clients:
            self.disk.listeners.append(self.facts.append)
        self.clients.append(client)
        self.truth[name] = native
        self._ways[name] = deque()
        side.on_answer = lambda unique, error: self._answered(client, unique, error)
        client.start()

    def _side(self, number: int, part: Part) -> Side:
        scenario = self._scenario
        return Side(
            self.disk,
            number,
            FIRST_THREAD + number,
            self.whose,
            offers=part.mode is not None,
            merges=scenario.merges,
            room=scenario.room,
            outbox=scenario.outbox,
        )

    def _lose(self, client: Client) -> None:
        """The connection is lost with all that was on its way; another one is made."""
        part = self._scenario.parts[client.number - 1]
        before = client.side
        self.disk.listeners.remove(before.queue.hear)
        before.close()
        side = self._side(client.number, part)
        self.disk.listeners.append(side.queue.hear)
        self._ways[client.name].clear()
        side.on_answer = lambda unique, error: self._answered(client, unique, error)
        client.connect_again(side)

    def _hears(self, client: Client) -> Callable[[Fact], bool]:
        if client.mode is None:
            return lambda fact: fact.thread == client.side.thread
        return lambda fact: fact.thread >= FIRST_THREAD

    @staticmethod
    def whose(thread: int) -> int:
        """The number of the client that a thread serves, 0 for the host's."""
        return thread - FIRST_THREAD

    def settle(self) -> None:
        """Everything that is under way comes to its end, in the plainest order."""
        host, self._host = self._host, deque()
        while choices := self.choices():
            self.take(choices[0].name)
        self._host = host

    # Choices

    def choices(self) -> list[Choice]:
        found: list[Choice] = []
        for client in self.clients:
            found += self._choices_of(client)
        if self._host:
            found.append(Choice("host", frozenset(("disk!",))))
        return found

    def _choices_of(self, client: Client) -> Iterator[Choice]:
        name, side = client.name, client.side
        here, there = f"{name}!", f"{name}.side!"
        if client.can_begin:
            yield Choice(f"{name}.begin", frozenset((here,)))
        if client.losses and not client.is_busy:
            yield Choice(f"{name}.lose", frozenset((here, there, "disk!")))
        if client.can_work:
            yield Choice(f"{name}.work", frozenset((here,)))
        if client.wire.requests:
            opcode = client.wire.next_opcode
            disk = () if opcode in _LOCAL else ("disk",) if opcode in _READS else ("disk!",)
            yield Choice(f"{name}.request", frozenset((there, *disk)))
        heard = (here,) if self._scenario.room is None else (here, there)
        if self._scenario.one_way:
            if self._ways[name]:
                yield Choice(f"{name}.message", frozenset(heard))
        else:
            if side.answers:
                yield Choice(f"{name}.answer", frozenset((here,)))
            if side.notices:
                yield Choice(f"{name}.notice", frozenset(heard))
        if side.can_deliver:
            yield Choice(f"{name}.source", frozenset((there, "disk")))
        if side.can_flush:
            yield Choice(f"{name}.flush", frozenset((there, "disk")))

    def take(self, name: str) -> None:
        if name == "host":
            self.host.do(self._host.popleft())
            return
        who, _, what = name.partition(".")
        client = next(client for client in self.clients if client.name == who)
        side = client.side
        match what:
            case "begin":
                client.begin()
            case "lose":
                self._lose(client)
            case "work":
                client.work()
            case "request":
                self._request(client)
            case "answer":
                client.answered(side.answers.popleft())
            case "notice":
                client.notified(side.notices.popleft())
                side.pull()
            case "message":
                is_answer, message = self._ways[who].popleft()
                (client.answered if is_answer else client.notified)(message)
                side.pull()
            case "source":
                side.deliver()
            case "flush":
                side.deliver(flush=True)
        self._follow(client)

    def _request(self, client: Client) -> None:
        request = client.wire.requests.popleft()
        _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
        op = client.under_way
        if opcode == MARK and op is not None and op.name == "watch":
            key = key_of(client.side, node)
            if key is not None and _MARK.unpack_from(request, _HEADER.size)[1]:
                label, _, mask = op.args
                self._marking[client.name, unique] = label, key, mask_of(mask)
        client.side.receive(request)

    def _answered(self, client: Client, unique: int, error: int) -> None:
        """The server answers; of a MARK that is the moment from which it holds."""
        watch = self._marking.pop((client.name, unique), None)
        if watch is not None and not error:
            self.truth[client.name].add(*watch)

    def _follow(self, client: Client) -> None:
        """What the server has written, in one way with all else that it writes."""
        side = client.side
        if self._scenario.one_way:
            way = self._ways[client.name]
            way.extend((True, message) for message in side.answers)
            way.extend((False, message) for message in side.notices)
            side.answers.clear()
            side.notices.clear()
        elif client.mode is None:
            # Nobody asks the server; that it is done is the moment.
            for label, path, mask in client.placed:
                self.truth[client.name].add(label, self.disk.at(path.strip(".")).key, mask)
            client.placed.clear()

    # The end

    def faults(self) -> list[str]:
        found = [f"said: {line}" for line in self.log.lines]
        found += [
            f"{client.name}: {client.under_way} is never answered"
            for client in self.clients
            if client.is_busy
        ]
        return found or self._check(self)


def making(scenario: Scenario, check: Check, prepare: Prepare | None = None) -> Make:
    """Worlds of one scenario; ``prepare`` breaks something in them, when all is set up."""

    @contextmanager
    def make() -> Iterator[World]:
        with World(scenario, check, prepare) as world:
            yield world

    return make
