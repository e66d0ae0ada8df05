"""Order between what is written to shared memory and what is read from it.

A virtqueue needs three orders, of which a processor keeps some by itself:

    reads    an index is read before what it announces     x86: always    aarch64: not
    writes   an index is written after what it announces   x86: always    aarch64: not
    full     an index is written before the other side's
             wish to be notified is read                   neither

Python has no fences.  Taking and giving back a lock is an atomic read-modify-write, on
x86 a full barrier.  On aarch64 it is acquire and release, which is less; there, what is
done instead is sched_yield(2), since the scheduler begins with a full barrier
(``__schedule`` in kernel/sched/core.c, for membarrier(2)'s sake).  It is not promised to
programs, and costs a system call.

Each index is read and written as one aligned 16-bit word: an item of a memoryview with
format ``H``, which the interpreter copies with a fixed-size memcpy.  ``struct`` with ``<``
would go byte by byte.
"""

from __future__ import annotations

import os
import threading

WEAK = os.uname().machine not in ("x86_64", "i686")
"""Whether ``full`` has to stand where ``reads`` and ``writes`` are needed, too."""
_lock = threading.Lock()


def full() -> None:
    """Everything before is seen by others before everything after is done."""
    if WEAK:
        os.sched_yield()
        return
    with _lock:
        pass
