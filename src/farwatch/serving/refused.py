"""Why nothing is served."""

from __future__ import annotations

import os


class Refused(Exception):
    """What was asked for cannot be: what is wrong, where, and what to do."""

    def __init__(self, what: str, where: bytes | str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = os.fsdecode(where)
        self.remedy = remedy
