"""Random histories, by seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.simulator.histories import Op

PLACES = ("a", "b", "c", "d/a", "d/b", "e/a")
DIRECTORIES = ("d", "e", "d/f")
_WEIGHTS = {
    "create": 5, "mkdir": 2, "symlink": 1, "link": 3, "unlink": 6, "rmdir": 2, "rename": 6,
    "exchange": 2, "chmod": 2, "truncate": 2, "utime": 1, "setxattr": 1, "open": 5, "write": 4,
    "read": 2, "close": 4, "list": 1, "stat": 1,
}  # fmt: skip


def history(seed: int, length: int, *, handle: str = "h", without: Sequence[str] = ()) -> list[Op]:
    """``length`` operations; some will fail, as somebody's do."""
    weights = {name: weight for name, weight in _WEIGHTS.items() if name not in without}
    chance = random.Random(seed)
    found: list[Op] = []
    handles = 0
    open_now: list[str] = []

    def path() -> str:
        return chance.choice(PLACES if chance.random() < 0.8 else DIRECTORIES)

    while len(found) < length:
        name = chance.choices(list(weights), list(weights.values()))[0]
        if name in ("write", "read", "close"):
            if not open_now:
                continue
            which = chance.choice(open_now)
            if name == "close":
                open_now.remove(which)
            found.append(Op(name, (which,)))
        elif name == "open":
            handles += 1
            which = f"{handle}{handles}"
            open_now.append(which)
            found.append(Op(name, (which, chance.choice(PLACES), chance.choice("rwc"))))
        elif name in ("rename", "link", "exchange"):
            found.append(Op(name, (path(), path())))
        elif name == "symlink":
            found.append(Op(name, ("nowhere/at/all", chance.choice(PLACES))))
        elif name in ("mkdir", "rmdir", "list"):
            found.append(Op(name, (chance.choice(DIRECTORIES),)))
        else:
            found.append(Op(name, (path(),)))
    return found
