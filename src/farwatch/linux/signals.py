"""Signals that ask this program to end, for who waits for descriptors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def asked_to_end() -> Iterator[int]:
    """A descriptor that becomes readable when a signal asks to end, and stays so until it is read.

    For a process's first thread, as signal(2) has it in Python.  It is written to by the signal
    itself: what Python calls for one is called by the first thread when that comes to it, which
    it does not while it waits, if the signal came a moment before or to another thread.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda *_: None) for number in ENDING}
    old_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
