"""Rules switched off, and scenes set, by changing one function of the program each.

``SERVER`` is applied in the process that the server is forked from, ``AGENT`` in the
agent.  A mutation may be in both.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

from farwatch.abi.steps import Op, Step
from farwatch.linux import mounts

_CLONE_NEWPID = 0x20000000
"""linux/sched.h"""

Mutation = Callable[[str], None]
"""Changes the program; takes what follows the colon, or an empty string."""


def apply(names: str, known: Mapping[str, Mutation]) -> None:
    """Apply those of ``names`` (``a,b:argument``) that are in ``known``."""
    for name in filter(None, names.split(",")):
        mutation, _, argument = name.partition(":")
        if mutation not in SERVER and mutation not in AGENT:
            raise KeyError(mutation)
        if mutation in known:
            known[mutation](argument)


# A replay is marked and armed ----------------------------------------------------


def unarmed_is_acted_on(_: str) -> None:
    """A marked request that is not armed is taken for what it looks like."""
    from farwatch.session.marked import Marked
    from farwatch.session.request import handler_of

    original = Marked.answer

    def answer(self: Marked, request: Any) -> Any:
        try:
            return original(self, request)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ECANCELED):
                raise
            return handler_of(self._handlers, request.opcode)(request)

    Marked.answer = answer  # type: ignore[method-assign]


def any_thread_is_the_agent(_: str) -> None:
    from farwatch.session.answers import Answers

    original = Answers.__init__

    def init(self: Answers, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._is_agent = lambda thread: True

    Answers.__init__ = init  # type: ignore[method-assign]


def any_name_is_armed(_: str) -> None:
    from farwatch.session.replay import AT, TO, Replay

    Replay.which = lambda self, directory, name: (  # type: ignore[method-assign]
        TO if self.at is None else AT
    )


def armed_for_good(_: str) -> None:
    """What a batch had armed stays so when the batch is over."""
    from farwatch.session.delivery import Delivery

    Delivery._disarm = lambda self, replay: None  # type: ignore[method-assign]


def lost_with_the_agent(_: str) -> None:
    """What an agent had under way when it died is not done by the next one."""
    from farwatch.session.delivery import Delivery

    original = Delivery.restart

    def restart(self: Delivery) -> None:
        for replay in self._batch:
            replay.done = True
        original(self)

    Delivery.restart = restart  # type: ignore[method-assign]


def revived_at_once(_: str) -> None:
    """No pause before a dead agent's successor, however often: only to save the test's time."""
    from farwatch.mounting import agentprocess

    agentprocess._SHORT_LIVES = 1 << 30


def in_a_pid_namespace(_: str) -> None:
    """Server and agent live in a pid namespace of their own: the client does not."""
    from farwatch.mounting.supervisor import Supervisor

    original = Supervisor.run

    def run(self: Supervisor, on_ready: Callable[[], None]) -> int:
        mounts.unshare(_CLONE_NEWPID)
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        status = 1
        try:
            status = original(self, on_ready)
        finally:
            os._exit(status)

    Supervisor.run = run  # type: ignore[method-assign]


def _replace(module: ModuleType, **changed: object) -> None:
    """What a module has imported, it does not export: these are not its attributes."""
    vars(module).update(changed)


def _performing(change: Callable[[Callable[..., int], Any, Step, int], int]) -> None:
    from farwatch.agent.replayer import Replayer

    original = Replayer.perform

    def perform(self: Replayer, step: Step, sequence: int) -> int:
        return change(original, self, step, sequence)

    Replayer.perform = perform  # type: ignore[method-assign]


def dies_after_each_step(_: str) -> None:
    def change(original: Callable[..., int], self: Any, step: Step, sequence: int) -> int:
        original(self, step, sequence)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    _performing(change)


def stops_before_step(argument: str) -> None:
    """The agent stops itself before its n-th step, counted from 1."""
    left = int(argument)

    def change(original: Callable[..., int], self: Any, step: Step, sequence: int) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(self, step, sequence)

    _performing(change)


def late_by_a_batch(_: str) -> None:
    """A removal is reported as failed, and tried again by its old mark a batch later."""
    late: list[tuple[Step, int]] = []

    def change(original: Callable[..., int], self: Any, step: Step, sequence: int) -> int:
        if step.op == Op.UNLINK and step.name == b"x" and not late:
            late.append((step, sequence))
            return errno.EAGAIN
        if late and step.name != b"x":
            _say(f"late: {original(self, *late[0])}")
        return original(self, step, sequence)

    _performing(change)


def acts_otherwise(_: str) -> None:
    """At its first removal the agent does all that it is not asked to, by its mark."""
    # Its own mount namespace will hold no files: all is imported before.
    from farwatch.abi.control import FIRST_UID, ROOT_ID
    from farwatch.linux.credentials import setfsuid
    from tests.rules import hostile

    is_over = False

    def change(original: Callable[..., int], self: Any, step: Step, sequence: int) -> int:
        nonlocal is_over
        if step.op == Op.UNLINK and not is_over:
            is_over = True
            setfsuid(FIRST_UID + sequence)
            _say("otherwise: " + hostile.report(hostile.attempt_all(self._directories.of(ROOT_ID))))
        return original(self, step, sequence)

    _performing(change)


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


# A mount of its own --------------------------------------------------------------


def works_in_the_clients_mount(_: str) -> None:
    """The agent holds the client's mount itself, among the client's other mounts."""
    from farwatch.agent import agent, mountpoint

    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    changed = {
        "open_tree": lambda _, path, __: os.open(path, flags),
        "mount_setattr": lambda *_, **__: None,
    }
    _replace(mountpoint, mounts=SimpleNamespace(**{**vars(mounts), **changed}))
    _replace(agent, enter_private_root=lambda binds: None)


def opens_across_mounts(_: str) -> None:
    """Where paths count, what the client has mounted on a name is taken for the name."""
    from farwatch.agent import onlyfiles

    onlyfiles._SAME_MOUNT = 0


# Never open what is not a file ---------------------------------------------------


def opens_anything_in_the_agent(_: str) -> None:
    from farwatch.agent import mountpoint, onlyfiles
    from farwatch.agent.onlyfiles import OnlyFiles

    def reopen(path: int, mode: int) -> int:
        return os.open(b"/proc/self/fd/%d" % path, mode | os.O_NOCTTY | os.O_CLOEXEC)

    onlyfiles._OPEN &= ~os.O_NONBLOCK
    mountpoint._SAFE &= ~mounts.MOUNT_ATTR_NODEV
    OnlyFiles.reopen = staticmethod(reopen)  # type: ignore[method-assign]


def opens_anything_in_the_plan(_: str) -> None:
    from farwatch.session.planning import contents

    _replace(contents, S_ISREG=lambda mode: True)


# What the client is told, and when -----------------------------------------------


def pending_is_believed(_: str) -> None:
    """A name is told for good while a replay of it is on its way, and acted on unasked."""
    from farwatch.session.answers import Answers
    from farwatch.session.view import View

    View.found = lambda *_: 1  # type: ignore[method-assign]
    Answers._must_know = lambda *_: None  # type: ignore[method-assign]


def targets_as_they_are_now(_: str) -> None:
    """The target of a rename is told to be what is there by now: what was renamed."""
    from farwatch.session.answers import Answers

    original = Answers._lookup

    def lookup(self: Answers, replay: Any, request: Any) -> Any:
        other, replay.other = replay.other, replay.node
        try:
            return original(self, replay, request)
        finally:
            replay.other = other

    Answers._lookup = lookup  # type: ignore[method-assign]


def link_counts_of_the_disk(_: str) -> None:
    """Everybody is told the link count that the disk has now."""
    from farwatch.session.links import Links

    Links.told = lambda self, node, on_disk: on_disk  # type: ignore[method-assign]


def removals_from_the_disks_count(_: str) -> None:
    """A removal's replay takes one from the count that the disk has now."""
    from farwatch.session.answers import Answers

    def links_before(self: Answers, replay: Any, node: Any) -> int:
        return max(self._links_on_disk(node), 1)

    Answers._links_before = links_before  # type: ignore[method-assign]
    Answers._must_know = lambda *_: None  # type: ignore[method-assign]


def never_pins(_: str) -> None:
    """What the remote side holds open is not kept in the client."""
    from farwatch.session.planning.lifetimes import Lifetimes

    Lifetimes.pin_if_held = lambda *_: 0  # type: ignore[method-assign]


def no_look_at_old_names(_: str) -> None:
    """Neither as a step of its own, nor by the agent when the rename fails."""
    from farwatch.agent.replayer import Replayer
    from farwatch.session.planning.names import Names

    Names._look_along = lambda *_: None  # type: ignore[method-assign]
    Replayer._look_again = lambda *_: None  # type: ignore[method-assign]


def exchange_as_two_renames(_: str) -> None:
    """The two events of an exchange are replayed one by one."""
    from farwatch.events import Change, Kind
    from farwatch.session.planning.names import Names

    def exchange(self: Names, change: Change) -> None:
        self.rename(change._replace(kind=Kind.RENAME))
        self.rename(Change(Kind.RENAME, change.new_place, change.other, False, change.place))

    Names.exchange = exchange  # type: ignore[method-assign]


def no_cancelling(_: str) -> None:
    """What the client does to a name leaves the replays of that name as they were."""
    from farwatch.session.drains import Drains
    from farwatch.session.planning import Planner

    Planner.cancel = lambda *_: None  # type: ignore[method-assign]
    Drains.changed_since = lambda *_: False  # type: ignore[method-assign]


# Opens and content ---------------------------------------------------------------


def replay_opens_without_backing(_: str) -> None:
    from farwatch.export.backing import BackingFiles

    BackingFiles.share = lambda self, key: None  # type: ignore[method-assign]


def access_mode_unknown(_: str) -> None:
    """How a remote opener has opened a file is not looked for."""
    from farwatch.serving import server

    _replace(server, access_mode=lambda *_: None)


def touches_whoever_listens(_: str) -> None:
    """MODIFY is an inode's event also for those who are told of paths."""
    from farwatch.session.planning.contents import Contents

    Contents._file_for = lambda *_: None  # type: ignore[method-assign]


def inode_events_by_name(_: str) -> None:
    """What only the inode is to be told is replayed under a name that it is known by."""
    from farwatch.session.planning.ground import Ground, Target

    original = Ground.hide

    def hide(self: Ground, node: Any) -> Target:
        return Target(node, node.names[0]) if node.names else original(self, node)

    Ground.hide = hide  # type: ignore[method-assign]


def link_counts_unexplained(_: str) -> None:
    """An ATTRIB of a link count is replayed whether or not something explains it."""
    from farwatch.sources.settling.nameless import Nameless

    Nameless._may_be_explained = lambda *_: False  # type: ignore[method-assign]
    Nameless._explanations = lambda *_: set()  # type: ignore[method-assign]


def without_passthrough(_: str) -> None:
    from farwatch.mounting import server
    from farwatch.mounting.options import Options
    from farwatch.session.settings import Caching, Settings

    original = server._settings

    def settings(options: Options, caching: Caching) -> Settings:
        return original(options, caching)._replace(passthrough=False)

    server._settings = settings


def pages_kept_at_modify(_: str) -> None:
    from farwatch.session import answers

    setattr(answers, "_drops_pages", lambda replay: False)  # noqa: B010


def no_export_support(_: str) -> None:
    """Directories cannot be found by handle once the client has evicted their names."""
    from farwatch.abi.fuse import Init
    from farwatch.session import negotiation

    negotiation.ALWAYS &= ~Init.EXPORT_SUPPORT


# Who wants it --------------------------------------------------------------------


def only_what_a_scan_found(_: str) -> None:
    """An event is dropped unless a scan has found a watch for it."""
    from farwatch.session.interest import Interest

    original = Interest.live

    def live(self: Interest, key: Any) -> Any:
        node = original(self, key)
        return node if node is not None and self._watches.get(node.id) else None

    Interest.live = live  # type: ignore[method-assign]


def every_mark_pins(_: str) -> None:
    """Mount and superblock marks are taken for marks on inodes."""
    from farwatch.session.interest import Interest

    original = Interest.learn

    def learn(self: Interest, flags: int, microseconds: int, watches: Any) -> bool:
        is_complete = original(self, flags, microseconds, watches)
        self.everything = False
        return is_complete

    Interest.learn = learn  # type: ignore[method-assign]


def never_prunes(_: str) -> None:
    """The client's kernel is never asked to forget."""
    from farwatch.transports.devfuse import DevFuse

    original = DevFuse.send

    def send(self: DevFuse, reply: Any) -> None:
        # A notification's header has no request's number (fuse_out_header.unique).
        if bytes(reply[0][8:16]) != bytes(8):
            original(self, reply)

    DevFuse.send = send  # type: ignore[method-assign]


def counts_nodes(path: str) -> None:
    """SIGUSR1 makes the server write how many nodes its client knows."""
    from farwatch.session.session import Session

    counts = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sessions: list[Session] = []
    original = Session.__init__

    def init(self: Session, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        sessions.append(self)
        signal.signal(
            signal.SIGUSR1,
            lambda *_: os.write(counts, b"%d\n" % len(sessions[-1].view.nodes)) and None,
        )

    Session.__init__ = init  # type: ignore[method-assign]


# What a client believes ----------------------------------------------------------


def closes_change_nothing(_: str) -> None:
    """A file that is closed is taken to be as it was told."""
    from farwatch.session.planning.ground import Ground

    Ground.refresh = lambda self, target: None  # type: ignore[method-assign]


def absent_names_are_not_asked_for(_: str) -> None:
    """The agent's kernel is left to believe that a name is not there."""
    from farwatch.session.belief import Belief

    Belief.took_for_absent = lambda self, directory, name: False  # type: ignore[method-assign]


def nothing_is_doubted(_: str) -> None:
    """The client's kernel is never notified of what has changed."""
    from farwatch.session.doubts import Doubts

    Doubts.take = lambda self: []  # type: ignore[method-assign]


def nobody_writes(_: str) -> None:
    """Nobody behind the client is taken to have a file open for writing."""
    from farwatch.session.writers import Writers

    Writers.holds = lambda self, key: False  # type: ignore[method-assign]
    Writers.learn = lambda self, records: None  # type: ignore[method-assign]


def by_thread(_: str) -> None:
    """The agent is known by its thread, as an ordinary user's."""
    from farwatch.mounting import server
    from farwatch.session.settings import Marks

    before = server._settings
    server._settings = lambda *given: before(*given)._replace(marks=Marks.BY_THREAD)


SERVER: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        by_thread,
        unarmed_is_acted_on,
        any_thread_is_the_agent,
        any_name_is_armed,
        armed_for_good,
        lost_with_the_agent,
        revived_at_once,
        in_a_pid_namespace,
        opens_anything_in_the_plan,
        pending_is_believed,
        targets_as_they_are_now,
        link_counts_of_the_disk,
        removals_from_the_disks_count,
        never_pins,
        no_look_at_old_names,
        exchange_as_two_renames,
        no_cancelling,
        replay_opens_without_backing,
        access_mode_unknown,
        touches_whoever_listens,
        inode_events_by_name,
        link_counts_unexplained,
        without_passthrough,
        pages_kept_at_modify,
        no_export_support,
        only_what_a_scan_found,
        every_mark_pins,
        never_prunes,
        counts_nodes,
        closes_change_nothing,
        absent_names_are_not_asked_for,
        nothing_is_doubted,
        nobody_writes,
    )
}
AGENT: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        dies_after_each_step,
        stops_before_step,
        late_by_a_batch,
        acts_otherwise,
        works_in_the_clients_mount,
        opens_across_mounts,
        opens_anything_in_the_agent,
        no_look_at_old_names,
    )
}
