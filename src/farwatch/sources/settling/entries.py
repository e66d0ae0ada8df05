"""CREATE and DELETE of a name that other records of the batch touch too.

Which of its events a record stands for follows from what the name holds, and from what
else is in its mask.
"""

from __future__ import annotations

from farwatch.events import Key
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.masks import CREATE, DELETE, ISDIR, MIDLIFE, NAMES
from farwatch.sources.settling.memory import Anticipated
from farwatch.sources.settling.nameless import Nameless
from farwatch.sources.settling.names import UNKNOWN, Name, Names
from farwatch.sources.settling.telling import Telling


class Entries:
    """Reads the records that say that a name came or went."""

    def __init__(
        self,
        anticipated: Anticipated,
        names: Names,
        ledger: Ledger,
        nameless: Nameless,
        telling: Telling,
    ) -> None:
        self._anticipated = anticipated
        self._names = names
        self._ledger = ledger
        self._nameless = nameless
        self._telling = telling

    def read(self, mask: int, thread: int, name: Name, node: Key) -> None:
        """CREATE, DELETE or both of ``node`` at a name, and what else its mask holds."""
        if mask & ISDIR:
            self._names.directories.add(node)
        name.see(mask, node, thread)
        bits = self._anticipated.not_anticipated(mask & NAMES, name, node)
        exact = bits == mask & NAMES and not mask & MIDLIFE
        comes = bits & CREATE and self._creates_here(name, node, bits, exact)
        goes = not comes and bits & DELETE and self._deletes_here(name, node, thread, bits, exact)
        if comes:
            self._ledger.leave_again(name)
            self._ledger.make_free(name)
            self._ledger.pay_before(name, node)
            self._ledger.do(name, CREATE, node, thread)
            bits &= ~CREATE
        if mask & MIDLIFE:
            self._telling.midlife(mask, name.place, node)
        if goes:
            self._ledger.make_hold(name, node)
            self._ledger.do(name, DELETE, node, thread)
            bits &= ~DELETE
        name.owe(bits, node, thread)

    def _creates_here(self, name: Name, node: Key, bits: int, exact: bool) -> bool:
        """Whether the CREATE of a record comes first, and where the record stands."""
        if name.holds == node:
            return exact and not bits & DELETE
        if exact or name.holds is None or name.holds is UNKNOWN:
            return True
        return (DELETE, name.holds) in name.owed or self._ledger.may_leave_again(name)

    def _deletes_here(self, name: Name, node: Key, thread: int, bits: int, exact: bool) -> bool:
        """Whether the DELETE of a record comes first, and where the record stands.

        The kernel reports the link count before; a record that is not exact and
        stands before that was put there by something else.  It matters only
        where a rename can have come in between.
        """
        if not exact and name.moves:
            counted = self._nameless.is_counted(thread, node)
            if not counted or name.is_left_by_rename(node):
                return False
        return name.holds in (node, UNKNOWN) or not bits & CREATE
