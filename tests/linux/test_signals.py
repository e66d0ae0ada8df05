"""Being asked to end: whoever waits is woken, to whichever thread the signal came."""

from __future__ import annotations

import select
import signal
import threading

import pytest

from farwatch.linux.signals import ENDING, asked_to_end
from tests.mounting.mounted import SECONDS


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_came_to_another_thread_wakes_the_first(number: signal.Signals) -> None:
    """What Python calls for it is not called before the first thread goes on."""
    ended, waits = threading.Event(), threading.Event()
    before = signal.getsignal(number)

    def other() -> None:
        waits.wait()
        # The first thread is about to wait; how far it is makes no difference to it.
        signal.pthread_kill(threading.get_ident(), number)
        ended.wait()

    thread = threading.Thread(target=other, daemon=True)
    with asked_to_end() as wakeup:
        thread.start()
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        waits.set()
        assert poll.poll(SECONDS * 1000) == [(wakeup, select.POLLIN)]
        assert poll.poll(0), "it stays so"
        ended.set()
        thread.join()
    assert signal.getsignal(number) is before
