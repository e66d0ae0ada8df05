"""Requests that carry the mark of the agent's: steps, and what the VFS asks along the way.

A step is answered as its replay says (answers.py).  To do it the kernel has to find its way:
it looks up the hidden directory and what is in it, walks to where the step is, and asks for
attributes; that is answered as for anybody, for it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from farwatch.abi.fuse import Opcode
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.answers import Answers
from farwatch.session.naming import Naming
from farwatch.session.request import Handler, Payload, Placed, Request, names
from farwatch.session.view import View

_HARMLESS = frozenset(
    (
        Opcode.GETATTR,
        Opcode.STATFS,
        Opcode.OPENDIR,
        Opcode.READDIR,
        Opcode.READDIRPLUS,
        Opcode.RELEASE,
        Opcode.RELEASEDIR,
        Opcode.FORGET,
        Opcode.BATCH_FORGET,
        Opcode.IOCTL,
        Opcode.GETXATTR,
    )
)
"""What the VFS asks on the agent's behalf besides its steps; it changes nothing."""
_LOOKUP = int(Opcode.LOOKUP)
_OPENDIR = int(Opcode.OPENDIR)
_GETATTR = int(Opcode.GETATTR)


class Marked:
    """Answers what is marked.  Called with the view's lock held.

    ``handler`` gives what answers an opcode for anybody.
    """

    def __init__(
        self,
        view: View,
        hidden_name: bytes,
        naming: Naming,
        answers: Answers,
        handler: Callable[[int], Handler],
    ) -> None:
        self._view = view
        self._hidden_name = hidden_name
        self._naming = naming
        self._answers = answers
        self._handler = handler

    def answer(self, request: Request) -> Payload | Placed | None:
        """The payload of the reply, or None if there is none yet.  Raises OSError."""
        opcode = request.opcode
        self._view.digested(request.pid)
        if opcode == _LOOKUP:
            found = self._on_the_way(request)
            if found is not None:
                return found
        if opcode == _GETATTR:
            self._answers.hear_of_last_link(request)
        armed = opcode == _OPENDIR and self._answers.opens_directory(request)
        if opcode in _HARMLESS and not armed:
            return self._handler(opcode)(request)
        return self._answers.answer(request)

    def _on_the_way(self, request: Request) -> Payload | None:
        """The answer to a LOOKUP that is no step's."""
        view = self._view
        name = names(request.body, 0, 1)[0]
        if request.node == ROOT_ID and name == self._hidden_name:
            return view.entry(view.hidden, view.last_attributes(view.hidden))
        directory = self._hidden_directory(request.node, name)
        if directory is not None:
            return view.entry(directory, self._naming.attributes(directory), 0)
        if name in (b".", b"..") or self._answers.is_walk(request):
            return self._naming.lookup(request)
        return None

    def _hidden_directory(self, parent: int, name: bytes) -> Node | None:
        """A directory that the agent reaches through the hidden one.

        Not one that has its place in a step there: that is looked up as the step says.
        """
        view = self._view
        if parent != view.hidden.id or (parent, name) in view.pending:
            return None
        if not (name.startswith(b"n") and name[1:].isdigit()):
            return None
        node = view.nodes.by_id.get(int(name[1:]))
        return node if node is not None and node.is_dir else None
