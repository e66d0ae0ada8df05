"""Records of file systems of which an export has more than one mount.

The source names a file system by its id, whichever mount a change was seen from.  Where two
mounts of the export show parts of one file system, the nodes below each have keys of their
own (export/submounts.py): a record is told once for each mount below which somebody knows what
it is about.  Nearly always that is one; if nobody does, for each, since somebody may know the
directory that it is in, which only the disk tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farwatch.events import Key, Place, Record

_FSID = 8


class Aliases:
    """The mounts of each such file system, by its id: what the keys of each begin with.

    ``is_known`` says whether the client may know a node.  One thread changes ``prefixes``, by
    ``set``, while another translates.
    """

    def __init__(self, is_known: Callable[[Key], bool]) -> None:
        self._is_known = is_known
        self._prefixes: dict[bytes, tuple[bytes, ...]] = {}

    def set(self, fsid: bytes, prefixes: Sequence[bytes]) -> None:
        """These are the mounts of a file system now."""
        others = {name: had for name, had in self._prefixes.items() if name != fsid}
        if list(prefixes) not in ([], [fsid]):
            others[fsid] = tuple(prefixes)
        self._prefixes = others

    def translate(self, records: list[Record]) -> list[Record]:
        """The records, in their order, as the keys of the export's nodes are."""
        if not self._prefixes:
            return records
        found: list[Record] = []
        for index, record in enumerate(records):
            prefixes = self._prefixes.get(_fsid(record))
            if prefixes is None:
                found.append(record)
                continue
            seen = self._seen(record, prefixes) or self._seen_next(records, index, prefixes)
            found += [_from(record, prefix) for prefix in seen or prefixes]
        return found

    def _seen(self, record: Record, prefixes: Sequence[bytes]) -> list[bytes]:
        """From which of the mounts the client knows what a record is about."""
        keys = [place.directory for place in (record.place, record.new_place) if place]
        if record.node is not None:
            keys.append(record.node)
        return [
            prefix
            for prefix in prefixes
            if any(self._is_known(prefix + key[_FSID:]) for key in keys)
        ]

    def _seen_next(
        self, records: Sequence[Record], index: int, prefixes: Sequence[bytes]
    ) -> list[bytes]:
        """The same of the next record of the same thread, if that is about the same node.

        A link count is reported before the name that takes the link, and says no name.
        """
        record = records[index]
        if record.place is not None:
            return []
        for later in records[index + 1 :]:
            if later.thread == record.thread:
                return self._seen(later, prefixes) if later.node == record.node else []
        return []


def _fsid(record: Record) -> bytes:
    key = record.place.directory if record.place is not None else record.node
    return key[:_FSID] if key is not None else b""


def _from(record: Record, prefix: bytes) -> Record:
    def of(key: Key) -> Key:
        return prefix + key[_FSID:]

    def at(place: Place | None) -> Place | None:
        return None if place is None else Place(of(place.directory), place.name)

    return record._replace(
        place=at(record.place),
        node=None if record.node is None else of(record.node),
        new_place=at(record.new_place),
    )
