"""Requests that wait: when they are tried again, and how they end."""

from __future__ import annotations

import errno
import time

from farwatch.abi import fuse
from farwatch.session.request import Payload
from farwatch.session.waiting import Blocked, Waiting


class Gate:
    """Something to wait for."""

    def __init__(self, by: Blocked) -> None:
        self.by = by
        self.error = 0
        self.is_open = False
        self.tries = 0

    def attempt(self) -> Payload | Blocked:
        self.tries += 1
        if self.error:
            raise OSError(self.error, "never")
        return b"done" if self.is_open else self.by


def answered(waiting: Waiting) -> tuple[int, int, bytes] | None:
    """Unique, errno and payload of the next answer."""
    reply = waiting.next_answer()
    if reply is None:
        return None
    data = b"".join(reply)
    length, error, unique = fuse.OUT_HEADER.unpack_from(data)
    assert length == len(data)
    return unique, -error, data[fuse.OUT_HEADER.size :]


def test_what_can_be_done_does_not_wait() -> None:
    waiting, gate = Waiting(), Gate(Blocked.BY_OTHERS)
    gate.is_open = True
    assert waiting.answer(7, gate.attempt) == b"done"
    assert not len(waiting)
    assert waiting.due is None
    assert not waiting.may_have_answer


def test_others_are_asked_again_and_again() -> None:
    waiting, gate = Waiting(), Gate(Blocked.BY_OTHERS)
    assert waiting.answer(7, gate.attempt) is None
    pauses = []
    for _ in range(8):
        before = gate.tries
        due = waiting.due
        assert due is not None
        pauses.append(due - time.monotonic())
        assert pauses[-1] <= 0.016
        while gate.tries == before:
            assert answered(waiting) is None
        assert time.monotonic() >= due
    assert pauses[0] < pauses[-1]
    gate.is_open = True
    reply = None
    while reply is None:
        reply = answered(waiting)
    assert reply == (7, 0, b"done")
    assert waiting.due is None


def test_a_client_is_waited_for_without_asking() -> None:
    waiting, gate = Waiting(), Gate(Blocked.BY_A_CLIENT)
    assert waiting.answer(7, gate.attempt) is None
    assert waiting.due is None
    assert not waiting.may_have_answer
    waiting.changed()
    assert waiting.may_have_answer
    assert answered(waiting) is None
    assert gate.tries == 2
    gate.is_open = True
    waiting.changed()
    assert answered(waiting) == (7, 0, b"done")


def test_whom_it_waits_for_changes() -> None:
    waiting, gate = Waiting(), Gate(Blocked.BY_A_CLIENT)
    assert waiting.answer(7, gate.attempt) is None
    gate.by = Blocked.BY_OTHERS
    waiting.changed()
    assert answered(waiting) is None
    assert waiting.due is not None
    gate.by = Blocked.BY_A_CLIENT
    waiting.changed()
    assert answered(waiting) is None
    assert waiting.due is None


def test_in_the_order_in_which_they_came() -> None:
    waiting = Waiting()
    gates = [Gate(Blocked.BY_A_CLIENT) for _ in range(3)]
    for unique, gate in enumerate(gates, 1):
        assert waiting.answer(unique, gate.attempt) is None
    for gate in gates:
        gate.is_open = True
    waiting.changed()
    assert [answered(waiting) for _ in range(4)] == [
        *((unique, 0, b"done") for unique in (1, 2, 3)),
        None,
    ]


def test_interrupted_and_failed() -> None:
    waiting = Waiting()
    one, two = Gate(Blocked.BY_OTHERS), Gate(Blocked.BY_A_CLIENT)
    assert waiting.answer(1, one.attempt, lambda: errno.ENOLCK) is None
    assert waiting.answer(2, two.attempt) is None
    waiting.interrupt(3)
    assert not waiting.may_have_answer or waiting.due is not None
    waiting.interrupt(1)
    assert waiting.may_have_answer
    assert answered(waiting) == (1, errno.ENOLCK, b"")
    assert waiting.due is None
    two.error = errno.EDEADLK
    waiting.changed()
    assert answered(waiting) == (2, errno.EDEADLK, b"")
    assert not len(waiting)


def test_nobody_to_answer() -> None:
    waiting, gate = Waiting(), Gate(Blocked.BY_OTHERS)
    assert waiting.answer(1, gate.attempt) is None
    waiting.forget()
    gate.is_open = True
    waiting.changed()
    assert answered(waiting) is None
    assert not waiting.may_have_answer
    assert gate.tries == 1
