r"""Replays: one step of the agent's each, and what the server must know to answer it.

While the agent is on a step, each of its requests carries the step's number as its user
id (a reserved range, see abi/control.py), so a request is acknowledged only if it is
exactly the one that the step is for:

    not armed --arm--> armed --last request answered--> done --WAIT--> over
                         \--------- WAIT, the step failed ----------> over
        any of them before done --local change--> cancelled: refused from then on

How the requests are answered: answers.py.
"""

from __future__ import annotations

from farwatch.abi.control import FIRST_UID, LAST_UID
from farwatch.abi.steps import ABOUT_NAMES, Op, Step
from farwatch.export.nodes import Node

REMOVES = frozenset((Op.UNLINK, Op.RMDIR))
CREATES = frozenset((Op.MKNOD, Op.MKDIR, Op.SYMLINK))
KEEPING_NAMES = frozenset((Op.TOUCH, Op.OPEN, Op.OPEN_CLOSE, Op.LOOK))
"""Steps after which their names hold what they held before."""
CHANGES_CACHE = frozenset((Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.RENAME, Op.TOUCH)) | REMOVES
"""Steps that set right what the client has cached, if they are done."""
AT, TO = 1, 2
"""The two names of a step, as bits."""
RENAME_EXCHANGE = 1 << 1
"""``RENAME_EXCHANGE`` of linux/fs.h."""

Where = tuple[Node, bytes]
"""A directory and a name in it; an empty name is the directory itself."""


class Replay:
    """One step and what the server must know to answer it.

    ``node``     what the step is about
    ``other``    what a RENAME replaces, or exchanges with
    ``at, to``   the names that the step is about: the old and the new one
    ``trusted``  the names (AT, TO) of which the client is known to believe the right thing
    ``looked``   the names that it has asked for in this step
    ``instead``  what is to be replayed in its place, now that it is cancelled
    ``final``    the inode is gone: this takes its last link, whatever was counted
    """

    __slots__ = (
        "at",
        "cancelled",
        "done",
        "final",
        "instead",
        "looked",
        "node",
        "op",
        "opened",
        "other",
        "sequence",
        "step",
        "to",
        "trusted",
    )

    def __init__(
        self,
        step: Step,
        node: Node,
        at: Where | None = None,
        to: Where | None = None,
        other: Node | None = None,
        trusted: int = 0,
        final: bool = False,
    ) -> None:
        self.step = step
        self.op = step.op
        self.node = node
        self.at = at
        self.to = to
        self.other = other
        self.trusted = trusted
        self.final = final
        self.looked = 0
        self.sequence = -1
        self.done = False
        self.opened = False
        self.cancelled = False
        self.instead: list[Replay] = []

    def names(self) -> list[Where]:
        """The names that are pending while this is on its way."""
        return [where for where in (self.at, self.to) if where is not None and where[1]]

    def which(self, directory: int, name: bytes) -> int:
        """Which of its names this is, AT or TO; 0 for neither."""
        for where, end in ((self.at, AT), (self.to, TO)):
            if where is not None and where[0].id == directory and where[1] == name:
                return end
        return 0

    def nodes(self) -> list[Node]:
        """The nodes that must be kept while this is on its way."""
        found = [self.node]
        if self.other is not None:
            found.append(self.other)
        found += [where[0] for where in (self.at, self.to) if where is not None and where[0].key]
        return found

    def outdates(self) -> list[Node]:
        """The nodes that are others when this is done, while its answer does not say how.

        Of what loses a link, and of what is made or touched, the client's kernel knows that any
        answer from before is old.
        """
        if self.op not in ABOUT_NAMES:
            return []
        found = [where[0] for where in (self.at, self.to) if where is not None]
        if self.op == Op.RENAME:
            found.append(self.node)
            if self.exchanges and self.other is not None:
                found.append(self.other)
        return found

    def links_gained(self) -> list[tuple[Node, int]]:
        """What ``Node.unlinks`` is while this is planned and not done."""
        if self.op in REMOVES:
            return [(self.node, 1)]
        if self.op == Op.LINK:
            return [(self.node, -1)]
        if self.op == Op.RENAME and self.other is not None and not self.exchanges:
            return [(self.other, 1)]
        return []

    def moves(self) -> list[Node]:
        """The directories that are somewhere else, or nowhere, when this is done."""
        if self.op == Op.RMDIR:
            return [self.node]
        if self.op != Op.RENAME:
            return []
        return [node for node in (self.node, self.other) if node is not None and node.is_dir]

    def takes_link_of(self, node: Node) -> bool:
        """Whether this takes one of the node's links."""
        if self.op in REMOVES:
            return node is self.node
        return self.op == Op.RENAME and not self.exchanges and node is self.other

    @property
    def uses_name(self) -> bool:
        """Whether the agent does it to what it finds under the old name."""
        return self.op not in CREATES and self.op != Op.PIN

    @property
    def keeps_names(self) -> bool:
        """Whether the names hold afterwards what they held before."""
        return self.op in KEEPING_NAMES

    @property
    def exchanges(self) -> bool:
        """Whether this is a RENAME that exchanges."""
        return self.op == Op.RENAME and bool(self.step.argument & RENAME_EXCHANGE)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "done" if self.done else "on its way"
        name = Op(self.op).name
        return f"<Replay {name} {self.step.name!r} {self.step.new_name!r} {state}>"


def is_reserved(uid: int) -> bool:
    """Whether a user id is of the range that marks replays."""
    return FIRST_UID <= uid <= LAST_UID
