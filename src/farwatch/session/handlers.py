"""Which requests of a client are answered, and by whom: that depends on whom it is served for.

A table of handlers by opcode is made of those of each subject; then ``as_served`` puts others in
their place, or something around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.export.noted import NotedExport
from farwatch.session.attributes import Attributes
from farwatch.session.callers import Callers
from farwatch.session.content import Content
from farwatch.session.files import OpenFiles
from farwatch.session.fsnotify.subscription import Subscription
from farwatch.session.leases import patient
from farwatch.session.naming import Naming
from farwatch.session.negotiation import Agreed
from farwatch.session.noting import noted
from farwatch.session.permission import access, guarded, no_control_channel
from farwatch.session.readonly import read_only
from farwatch.session.request import Handler, Payload, Request
from farwatch.session.settings import Marks
from farwatch.session.surroundings import Lasting
from farwatch.session.view import View
from farwatch.session.waiting import Waiting


def of_nodes(
    lasting: Lasting,
    agreed: Agreed,
    view: View,
    files: OpenFiles,
    naming: Naming,
    waiting: Waiting,
) -> dict[int, Handler]:
    """The handlers of names, attributes and content."""
    export, settings = lasting.export, lasting.settings
    callers = Callers(knows_pids=settings.knows_pids)
    attributes = Attributes(export, view, files, naming, callers, agreed)
    content = Content(export, view, files, naming, callers, settings.max_write)
    return {
        **naming.handlers,
        **attributes.handlers,
        **(attributes.xattr_handlers if settings.xattrs else {}),
        **content.handlers,
        Opcode.OPEN: patient(content.open, waiting),
    }


def of_marks(lasting: Lasting, subscription: Subscription, naming: Naming) -> dict[int, Handler]:
    """The handlers of a client that keeps its own marks."""
    if not lasting.settings.checks_permissions:
        return subscription.handlers
    must_be_readable = lasting.export.must_be_readable
    return guarded(
        subscription.handlers, lambda node_id: must_be_readable(naming.node(node_id).key)
    )


def as_served(
    handlers: dict[int, Handler], lasting: Lasting, files: OpenFiles, naming: Naming
) -> dict[int, Handler]:
    """The same handlers, but for what this client may not, or the source must be told."""
    export, settings = lasting.export, lasting.settings
    if settings.checks_permissions:
        handlers[Opcode.IOCTL] = no_control_channel
    if settings.marks is Marks.BY_THREAD:
        handlers[Opcode.ACCESS] = access(
            lambda node_id, mode: export.must_allow(naming.node(node_id).key, mode)
        )
    if settings.is_read_only:
        handlers = read_only(handlers)
    if isinstance(export, NotedExport):
        handlers = noted(handlers, export, files)
    return handlers


def interrupting(parking: Sequence[Callable[[int], None]]) -> Handler:
    """The handler of INTERRUPT: all who may have parked the request are told of it."""

    def answer(request: Request) -> None:
        (unique,) = fuse.INTERRUPT_IN.unpack_from(request.body)
        for interrupt in parking:
            interrupt(unique)

    return answer


def destroying(on_destroy: Callable[[], None]) -> Handler:
    """The handler of DESTROY."""

    def answer(request: Request) -> Payload:
        on_destroy()
        return b""

    return answer
