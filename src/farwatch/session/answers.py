"""How the agent's requests are answered while it is on a step.

What an armed step may send, and how each request is answered:

    step                  LOOKUP of its name       LOOKUP of its new name    ends with
    MKNOD MKDIR SYMLINK   ENOENT                                             the same request
    LINK                  the node                 ENOENT                    LINK
    UNLINK RMDIR          the node as it was                                 the same request
    RENAME                the node as it was       what it replaces, or      RENAME, RENAME2
                                                   ENOENT
    TOUCH                 the node                                           SETATTR of times
    OPEN OPEN_CLOSE       the node                                           OPEN, OPENDIR
    PIN LOOK              the node                                           LOOKUP
    WRITE READ                                                               WRITE, READ

None of these touches the export, whatever is on the disk under that name by now.

UNLINK and RENAME act on what the client's kernel has *cached* under a name and do not
say which node that is.  So unless the client is known to believe the right thing
(``trusted``), or has asked in this very step (``looked``), the answer is ESTALE: the
VFS then walks again with LOOKUP_REVAL, and asks.  The same answer is given where a
request names another node than the step is about.

Anything else from the reserved range is refused with EPERM, but for questions about
directories and attributes that the VFS asks along the way.

Of a MODIFY the client's kernel drops the pages that it has of the file before it makes the
event, for who has it mapped asks for nothing.  The answer to SETATTR cannot do that, only one
to LOOKUP; so a SETATTR that comes first is answered with ESTALE here, too.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode, Valid
from farwatch.abi.steps import Op, Times
from farwatch.export.nodes import Node
from farwatch.session.files import ReplayOpens
from farwatch.session.inodes import impossible, with_links
from farwatch.session.matching import Matching
from farwatch.session.replay import AT, CREATES, KEEPING_NAMES, REMOVES, TO, Replay, Where
from farwatch.session.request import Payload, Request, fail, names, one_name
from farwatch.session.view import View

_TIMES_ONLY = Valid.ATIME | Valid.MTIME | Valid.ATIME_NOW | Valid.MTIME_NOW | Valid.CTIME | Valid.FH
_MODIFY = int(Times.MODIFY)
_FLUSH = int(Opcode.FLUSH)


class Answers:
    """Answers the requests of the agent's threads; see the top of the file."""

    def __init__(
        self,
        view: View,
        attributes: Callable[[Node], bytes],
        links_on_disk: Callable[[Node], int],
        opens: ReplayOpens,
        is_agent: Callable[[int], bool],
        matching: Matching,
    ) -> None:
        self._view = view
        self._attributes = attributes
        self._links_on_disk = links_on_disk
        self._opens = opens
        self._is_agent = is_agent
        self._matching = matching
        self.armed = matching.armed
        """What each number of the reserved range stands for at present."""
        self._handlers: dict[int, Callable[[Replay, Request], Payload | None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.MKNOD: self._create,
            Opcode.MKDIR: self._create,
            Opcode.SYMLINK: self._create,
            Opcode.LINK: self._link,
            Opcode.UNLINK: self._remove,
            Opcode.RMDIR: self._remove,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename,
            Opcode.SETATTR: self._touch,
            Opcode.OPEN: self._open,
            Opcode.OPENDIR: self._open,
            Opcode.WRITE: self._write,
            Opcode.READ: self._read,
        }

    def answer(self, request: Request) -> Payload | None:
        """The payload of a marked request's reply.  Raises OSError: see the top."""
        if request.opcode == _FLUSH:
            return b""
        replay = self._matching.of(request)
        handler = self._handlers.get(request.opcode)
        if replay is None or handler is None or replay.done or not self._is_agent(request.pid):
            raise fail(errno.EPERM, "not armed")
        if replay.cancelled:
            raise fail(errno.ECANCELED)
        payload = handler(replay, request)
        if replay.done:
            self._view.belief.outdated(*replay.outdates())
        return payload

    def opens_directory(self, request: Request) -> bool:
        """Whether an OPENDIR is a step's, and not the VFS's own."""
        replay = self._matching.of(request)
        return (
            replay is not None
            and not replay.done
            and replay.op in (Op.OPEN, Op.OPEN_CLOSE)
            and request.node == replay.node.id
            and self._is_agent(request.pid)
        )

    def is_about(self, request: Request, name: bytes) -> bool:
        """Whether a look-up of this name is of what a step is about."""
        return self._matching.is_named(request, name)

    def is_walk(self, request: Request) -> bool:
        """Whether a LOOKUP is of a directory on the way to what a step is about.

        The kernel looks for a directory's place in the tree when it opens its handle, and
        an open that is to be heard under its path is done by path.
        """
        name = names(request.body, 0, 1)[0]
        return self._matching.is_walk(request, name) and self._is_agent(request.pid)

    def hear_of_last_link(self, request: Request) -> None:
        """A GETATTR: an inode that lost its last name while it is pinned is told so now.

        The step that took the name left it a link.  Somebody may have looked at the name
        between the pin and the step: the kernel has put another dentry in the place of the
        pinned one then, and would take the end of that for the inode's if no link was left.
        """
        replay = self._matching.current(request)
        if replay is None or not (replay.done and replay.step.pin):
            return
        loser = replay.node if replay.op in REMOVES else replay.other
        if loser is not None and loser.id == request.node:
            loser.dead = True

    # Names -----------------------------------------------------------------------

    def _lookup(self, replay: Replay, request: Request) -> Payload:
        name = one_name(request.body)
        where = None
        end = replay.which(request.node, name)
        replay.looked |= end
        if end == AT:
            node = None if replay.op in CREATES else replay.node
            where = replay.at if replay.op in KEEPING_NAMES else None
        elif end == TO:
            node = replay.other if replay.op == Op.RENAME else None
        else:
            raise fail(errno.EPERM, "not armed")
        if node is None:
            raise fail(errno.ENOENT)
        if _drops_pages(replay):
            return self._view.entry(node, impossible(self._attributes(node)), 0, by_replay=True)
        return self._entry(node, self._as_it_was(replay, node), where)

    def _entry(self, node: Node, attributes: bytes, where: Where | None) -> bytes:
        """Good for as long as any look-up's, unless a replay of the name is to follow."""
        is_last = where is not None and self._view.is_settled(where[0], where[1], node)
        seconds = self._view.belief.name_seconds(node) if is_last else 0
        return self._view.entry(node, attributes, seconds, by_replay=True)

    def _as_it_was(self, replay: Replay, node: Node) -> bytes:
        attributes = self._attributes(node)
        if replay.takes_link_of(node):
            wanted = self._links_before(replay, node)
            if node.nlink != wanted:
                node.nlink = wanted
                attributes = with_links(attributes, wanted)
        return attributes

    def _links_before(self, replay: Replay, node: Node) -> int:
        """The count from which one is to be taken.

        What the disk counts, and the removals that are still to be told; but the disk
        may be ahead by removals that have not been read yet, so never less than what
        the client was told.  The inode's death is what ends it (``final``).
        """
        if node.is_dir:
            return max(node.nlink, 2)
        if replay.final:
            return 1
        if replay.step.pin:
            return 2
        # What the disk still counts is left after this one, also if a new link of it is
        # told later than this.
        return max(self._links_on_disk(node) + max(node.unlinks, 1), node.nlink, 1)

    def _create(self, replay: Replay, request: Request) -> Payload:
        layout = {Opcode.MKNOD: fuse.MKNOD_IN.size, Opcode.MKDIR: fuse.MKDIR_IN.size}
        start = layout.get(Opcode(request.opcode), 0)
        name = names(request.body, start, 2 if request.opcode == Opcode.SYMLINK else 1)[0]
        expected = {Op.MKNOD: Opcode.MKNOD, Op.MKDIR: Opcode.MKDIR, Op.SYMLINK: Opcode.SYMLINK}
        if expected.get(Op(replay.op)) != request.opcode or replay.which(request.node, name) != AT:
            raise fail(errno.EPERM, "not armed")
        replay.done = True
        replay.node.dead = False
        return self._entry(replay.node, self._attributes(replay.node), replay.at)

    def _link(self, replay: Replay, request: Request) -> Payload:
        (old,) = fuse.LINK_IN.unpack_from(request.body)
        name = one_name(request.body, fuse.LINK_IN.size)
        if replay.op != Op.LINK or replay.which(request.node, name) != TO:
            raise fail(errno.EPERM, "not armed")
        if old != replay.node.id:
            raise fail(errno.ESTALE)
        replay.node.unlinks += 1
        replay.done = True
        return self._entry(replay.node, self._attributes(replay.node), replay.to)

    def _remove(self, replay: Replay, request: Request) -> Payload:
        expected = Opcode.RMDIR if replay.op == Op.RMDIR else Opcode.UNLINK
        name = one_name(request.body)
        if (
            replay.op not in REMOVES
            or request.opcode != expected
            or replay.which(request.node, name) != AT
        ):
            raise fail(errno.EPERM, "not armed")
        self._must_know(replay, AT)
        self._lost(replay.node, request)
        replay.done = True
        return b""

    def _rename(self, replay: Replay, request: Request) -> Payload:
        layout = fuse.RENAME_IN if request.opcode == Opcode.RENAME else fuse.RENAME2_IN
        new_directory, *flags = layout.unpack_from(request.body)
        old, new = names(request.body, layout.size, 2)
        if (
            replay.op != Op.RENAME
            or replay.which(request.node, old) != AT
            or replay.which(new_directory, new) != TO
            or (flags[0] if flags else 0) != replay.step.argument
        ):
            raise fail(errno.EPERM, "not armed")
        self._must_know(replay, AT | TO)
        if replay.other is not None and not replay.exchanges:
            self._lost(replay.other, request)
        replay.done = True
        return b""

    def _must_know(self, replay: Replay, ends: int) -> None:
        """The client believes the right thing of the names, or is made to ask."""
        if (replay.looked | replay.trusted) & ends != ends:
            raise fail(errno.ESTALE)
        loser, end = (replay.node, AT) if replay.op in REMOVES else (replay.other, TO)
        if loser is None or loser.is_dir or replay.exchanges or replay.looked & end:
            return
        if loser.nlink != self._links_before(replay, loser):
            raise fail(errno.ESTALE)

    def _lost(self, node: Node, request: Request) -> None:
        node.unlinks -= 1
        self._view.links.unlinked_by(request.pid, node)

    # Inodes ----------------------------------------------------------------------

    def _touch(self, replay: Replay, request: Request) -> Payload:
        (valid, *_) = struct.unpack_from("<I", request.body)
        if replay.op != Op.TOUCH or valid & ~_TIMES_ONLY:
            raise fail(errno.EPERM, "not armed")
        self._must_be(replay, request)
        drops_pages = _drops_pages(replay)
        # A removed file that is gone through a pin has no name to be looked up.
        if drops_pages and not (replay.looked & AT or replay.step.pin):
            raise fail(errno.ESTALE)
        attributes = self._attributes(replay.node)
        replay.done = True
        if drops_pages:
            return fuse.ATTR_OUT_HEAD.pack(0, 0, 0) + impossible(attributes)
        return fuse.ATTR_OUT_HEAD.pack(self._view.attr_seconds(replay.node), 0, 0) + attributes

    def _open(self, replay: Replay, request: Request) -> Payload:
        if replay.op not in (Op.OPEN, Op.OPEN_CLOSE):
            raise fail(errno.EPERM, "not armed")
        self._must_be(replay, request)
        # Not done: the kernel may still refuse it (EIO), and the step is tried again.
        replay.opened = True
        return self._opens.open(replay.node, request.opcode == Opcode.OPENDIR)

    def _must_be(self, replay: Replay, request: Request) -> None:
        if request.node != replay.node.id:
            raise fail(errno.ESTALE)

    def _write(self, replay: Replay, request: Request) -> Payload:
        fh, _, size, *_ = fuse.WRITE_IN.unpack_from(request.body)
        if replay.op != Op.WRITE or not self._opens.is_replay(fh):
            raise fail(errno.EPERM, "not armed")
        replay.done = True
        return fuse.WRITE_OUT.pack(size, 0)

    def _read(self, replay: Replay, request: Request) -> Payload:
        fh, _, size, *_ = fuse.READ_IN.unpack_from(request.body)
        if replay.op != Op.READ or not self._opens.is_replay(fh):
            raise fail(errno.EPERM, "not armed")
        replay.done = True
        return bytes(min(size, 1))


def _drops_pages(replay: Replay) -> bool:
    """Whether the client's kernel may have pages of the file that are not right any more."""
    return replay.op == Op.TOUCH and replay.step.argument == _MODIFY and replay.node.cached
