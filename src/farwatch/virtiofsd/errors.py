"""Why a daemon cannot be started as it was asked to be."""

from __future__ import annotations


class BadOption(Exception):
    """An option that is wrong, or stands with another that it cannot stand with."""


class Refused(Exception):
    """A daemon that cannot be here: what is wrong, where, and what to do."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
