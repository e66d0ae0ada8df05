"""Which CPUs a thread may run on."""

from __future__ import annotations

import os
from contextlib import suppress

_MOST_CPUS = 8192
"""NR_CPUS of the largest kernels (arch/x86/Kconfig); sched_setaffinity(2) takes no notice
of those that are not there or not allowed."""


def leave_the_cpu() -> None:
    """The calling thread may run anywhere: it is not to hold up those of its process.

    Only where the process was bound to one CPU.
    """
    if len(os.sched_getaffinity(0)) == 1:
        # It is only for speed.
        with suppress(OSError):
            os.sched_setaffinity(0, range(_MOST_CPUS))
