"""Opening what somebody on the server's side has a lease of (fcntl(2), F_SETLEASE).

Natively whoever opens such a file waits until its holder has been told and has given it up,
for as long as /proc/sys/fs/lease-break-time says.  The server never waits: its opens fail at
once, which tells the holder, and are tried again.  A program that would not wait either
(O_NONBLOCK) is told so.
"""

from __future__ import annotations

import os

from farwatch.abi import fuse
from farwatch.session.request import Handler, Payload, Placed, Request
from farwatch.session.waiting import Blocked, Waiting


def patient(open_: Handler, waiting: Waiting) -> Handler:
    """The handler of OPEN that waits for leases; ``open_`` fails with EAGAIN instead."""

    def answer(request: Request) -> Payload | Placed | None:
        try:
            return open_(request)
        except BlockingIOError:
            if fuse.OPEN_IN.unpack_from(request.body)[0] & os.O_NONBLOCK:
                raise
        # What a request points to is only good until its handler returns.
        kept = request._replace(body=memoryview(bytes(request.body)))
        return waiting.answer(request.unique, lambda: _attempt(open_, kept))

    return answer


def _attempt(open_: Handler, request: Request) -> Payload | Blocked:
    try:
        answer = open_(request)
    except BlockingIOError:
        return Blocked.BY_OTHERS
    assert answer is not None, "an open is never parked by anybody else"
    assert not isinstance(answer, Placed), "and has no room"
    return answer
