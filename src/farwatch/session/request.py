"""A FUSE request as the handlers see it, and what they answer with."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from farwatch.abi import fuse
from farwatch.linux.pages import Pages

_MOST_GROUPS = 1 << 16
"""NGROUPS_MAX of ``linux/limits.h``."""
_WRITE_END = fuse.IN_HEADER.size + fuse.WRITE_IN.size
Payload = bytes | bytearray | memoryview
"""What follows the header of a reply."""
Views = Sequence[memoryview] | Pages
"""Content where it is."""


class Placed(NamedTuple):
    """A payload that is where it belongs: the first ``size`` bytes of the request's room."""

    size: int


class Request(NamedTuple):
    """The header's fields, and what follows it.

    ``body``  the arguments; they do not change any more, whoever has sent them
    ``data``  what a WRITE has behind its arguments; it may change at any moment
    ``room``  where the content goes that a READ asks for; None if that is to be returned
    ``groups`` supplementary groups of the caller's, as far as they matter to what he makes

    ``body``, ``data`` and ``room`` are only good until the handler returns.
    """

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: memoryview
    data: Views = ()
    room: Views | None = None
    groups: tuple[int, ...] = ()


Handler = Callable[[Request], Payload | Placed | None]
"""Returns the payload, or None if there is no answer (yet).  Raises OSError with the
errno to answer, or struct.error for a request that is too short."""


def fail(number: int, what: str = "") -> OSError:
    """An OSError with this errno, to be raised."""
    return OSError(number, what or os.strerror(number))


def handler_of(handlers: Mapping[int, Handler], opcode: int) -> Handler:
    """Who answers such requests.  Raises OSError ENOSYS if nobody does."""
    handler = handlers.get(opcode)
    if handler is None:
        raise fail(errno.ENOSYS)
    return handler


def split_extensions(body: memoryview, length: int) -> tuple[memoryview, tuple[int, ...]]:
    """A request's arguments, and the groups in the ``length`` bytes of extensions after them.

    Raises ValueError or struct.error where that is no extension of such a request.
    """
    start = len(body) - length
    if start < 0:
        raise ValueError("more extensions than there are bytes")
    size, kind = fuse.EXTENSION.unpack_from(body, start)
    if kind != fuse.EXTENSION_GROUPS or size > length:
        raise ValueError(f"extension {kind} of {size} bytes in {length}")
    (count,) = struct.unpack_from("<I", body, start + fuse.EXTENSION.size)
    if count > _MOST_GROUPS:
        raise ValueError(f"{count} groups")
    groups = struct.unpack_from(f"<{count}I", body, start + fuse.EXTENSION.size + 4)
    return body[:start], groups


def written(data: memoryview, length: int, payload: Views | None) -> Views:
    """What a WRITE has behind its arguments, no more than its header's ``length`` tells of.

    ``payload`` is that, if it is not in ``data``.
    """
    if payload is None:
        return (data[_WRITE_END:length],)
    return first(payload, max(0, length - len(data)))


def size_of(views: Views) -> int:
    """How many bytes these are."""
    return views.size if isinstance(views, Pages) else sum(map(len, views))


def first(views: Views, size: int) -> Views:
    """The first ``size`` bytes of some views: less if there are not so many."""
    if isinstance(views, Pages):
        return views.first(size) if size > 0 else []
    if sum(map(len, views)) <= size:
        return list(views)
    found = []
    for view in views:
        if len(view) >= size:
            found.append(view[:size])
            break
        found.append(view)
        size -= len(view)
    return found


def names(body: memoryview, start: int, count: int) -> list[bytes]:
    """The ``count`` names, each with its NUL, that a request ends with.

    Raises OSError EINVAL if there are not exactly so many.
    """
    found = bytes(body[start:]).split(b"\0")
    if len(found) != count + 1 or found[-1]:
        raise fail(errno.EINVAL, "a name without its end")
    return found[:-1]


def one_name(body: memoryview, start: int = 0) -> bytes:
    """The one name that a request ends with.

    Raises OSError EINVAL where a name is empty, dots, or has a slash: the client
    kernel never sends such, so whoever does is no kernel.  ENAMETOOLONG past NAME_MAX.
    """
    return checked(names(body, start, 1)[0])


def checked(name: bytes) -> bytes:
    """The name itself, if it is one that a directory can hold; see ``one_name``."""
    if not name or name == b"." or name == b".." or b"/" in name:
        raise fail(errno.EINVAL, "not a name")
    if len(name) > fuse.NAME_MAX:
        raise fail(errno.ENAMETOOLONG)
    return name
