"""What a command says when it cannot do what it was asked."""

from __future__ import annotations


class Failure(Exception):
    """An expected failure: one line on standard error, exit status 1.

    ``what`` is what went wrong, ``where`` the path or process it is about,
    ``remedy`` what the caller can do.  The last two may be left out.
    """

    def __init__(self, what: str, where: object = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = str(where)
        self.remedy = remedy

    def __str__(self) -> str:
        """The line, without the program's name; always a single, printable line."""
        line = ": ".join(part for part in (self.what, self.where) if part)
        return printable("; ".join(part for part in (line, self.remedy) if part))


def printable(text: str) -> str:
    """``text`` with what would break a line or a terminal escaped.

    File names may hold newlines, control characters, and (as surrogates) bytes
    that are not UTF-8.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
