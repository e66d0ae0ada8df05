"""Requests that carry the mark of the agent's: steps, and what the VFS asks along the way.

A step is answered as its replay says (answers.py).  To do it the kernel has to find its way:
it looks up the hidden directory and what is in it, walks to where the step is (standing.py), and
asks for attributes; that is answered as for anybody, for it changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from farwatch.abi.fuse import Opcode
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.answers import Answers
from farwatch.session.naming import Naming
from farwatch.session.request import Handler, Payload, Placed, Request, fail, handler_of, names
from farwatch.session.standing import held
from farwatch.session.view import View

_HARMLESS = frozenset(
    (
        Opcode.GETATTR,
        Opcode.STATX,
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

    ``handlers`` are those for anybody.
    """

    def __init__(
        self,
        view: View,
        hidden_name: bytes,
        naming: Naming,
        answers: Answers,
        handlers: Mapping[int, Handler],
    ) -> None:
        self._view = view
        self._hidden_name = hidden_name
        self._naming = naming
        self._answers = answers
        self._handlers = handlers

    def answer(self, request: Request) -> Payload | Placed | None:
        """The payload of the reply, or None if there is none yet.  Raises OSError."""
        opcode = request.opcode
        self._view.links.digested(request.pid)
        if opcode == _LOOKUP:
            found = self._on_the_way(request)
            if found is not None:
                return found
        if opcode == _GETATTR:
            self._answers.hear_of_last_link(request)
        armed = opcode == _OPENDIR and self._answers.opens_directory(request)
        if opcode in _HARMLESS and not armed:
            return handler_of(self._handlers, opcode)(request)
        return self._answers.answer(request)

    def _on_the_way(self, request: Request) -> Payload | None:
        """The answer to a LOOKUP that is no step's."""
        view = self._view
        name = names(request.body, 0, 1)[0]
        if request.node == ROOT_ID and name == self._hidden_name:
            return view.entry(view.hidden, view.last_attributes(view.hidden))
        if name == b"..":
            # Opening a handle: the kernel would list the directory above next, to find what this
            # one is called there, and that is heard by whoever watches it.
            raise fail(errno.ESTALE)
        is_walk = self._answers.is_walk(request)
        found = self._as_told(request, name) if is_walk else None
        if found is not None:
            return found
        directory = self._hidden_directory(request, name)
        if directory is not None:
            return view.entry(directory, self._naming.attributes(directory), 0)
        if name == b"." or is_walk:
            return self._naming.lookup(request)
        return None

    def _as_told(self, request: Request, name: bytes) -> Payload | None:
        """The answer on the way to a step, where the name will hold something else by a later one.

        The disk's answer would have the kernel put what is there now in the place of what
        is to be moved or removed.
        """
        is_pending, node = held(self._view, request.node, name)
        if not is_pending:
            return None
        if node is None:
            raise fail(errno.ENOENT)
        return self._view.entry(node, self._naming.attributes(node), 0, by_replay=True)

    def _hidden_directory(self, request: Request, name: bytes) -> Node | None:
        """A directory that the agent reaches through the hidden one.

        Not one that this step is about there: that is looked up as the step says.  A later step
        may be about it: what was in a directory is removed before it.  One that the client has
        removed is not found there: its kernel would hold it for as long as it has that name.
        """
        view = self._view
        if request.node != view.hidden.id or self._answers.is_about(request, name):
            return None
        if not (name.startswith(b"n") and name[1:].isdigit()):
            return None
        node = view.nodes.by_id.get(int(name[1:]))
        if node is None or not node.is_dir:
            return None
        if node.dead:
            raise fail(errno.ENOENT)
        return node
