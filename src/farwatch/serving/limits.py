"""How many files a server may have open: as many as its clients open at a time."""

from __future__ import annotations

import resource

from farwatch.serving.refused import Refused

_MOST = 1_000_000
"""virtiofsd's own default, where the system lets it."""


def raise_files_limit(wanted: int | None) -> None:
    """Set RLIMIT_NOFILE; None stands for as many as are of use, 0 for what there is.

    Raises Refused for a number that cannot be had.
    """
    if wanted == 0:
        return
    if wanted is not None:
        try:
            _set(wanted)
        except (OSError, ValueError) as error:
            raise Refused(f"cannot have so many files open: {error}", str(wanted)) from None
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        most = min(_MOST, int(file.read()))
    # Whoever may not raise the hard limit has that.
    for number in (most, most if hard == resource.RLIM_INFINITY else min(most, hard)):
        if soft == resource.RLIM_INFINITY or soft >= number:
            return
        try:
            _set(number)
        except (OSError, ValueError):
            continue
        return


def _set(number: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        hard = max(hard, number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
