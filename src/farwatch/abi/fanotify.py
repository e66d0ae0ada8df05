"""What is read from a fanotify group: fanotify(7)."""

from __future__ import annotations

import struct

from farwatch.events import Place, Record

METADATA_VERSION = 3
"""``FANOTIFY_METADATA_VERSION`` of ``linux/fanotify.h``."""

# linux/fanotify.h: FAN_EVENT_INFO_TYPE_*
INFO_FID = 1
INFO_DFID_NAME = 2
INFO_DFID = 3
INFO_OLD_DFID_NAME = 10
INFO_NEW_DFID_NAME = 12

# struct fanotify_event_metadata: event_len, vers, metadata_len, mask, fd, pid
_METADATA = struct.Struct("=IBxHQii")
METADATA_SIZE = _METADATA.size
# struct fanotify_event_info_header and the start of what follows in every
# record that holds a handle: info_type, len, fsid, handle_bytes, handle_type
_INFO = struct.Struct("=BxH8sIi")

_HEADER = 4
_BEFORE_HANDLE = _INFO.size
_NO_HANDLE = 255
"""``FILEID_INVALID`` of ``linux/exportfs.h``: a handle could not be made."""


def parse(data: bytes) -> list[Record]:
    """Every event of one read of a group made with FAN_REPORT_DFID_NAME_TARGET.

    Raises ValueError for bytes that are not whole events of version 3.
    """
    records: list[Record] = []
    append = records.append
    make = tuple.__new__
    metadata, info = _METADATA.unpack_from, _INFO.unpack_from
    offset, size = 0, len(data)
    try:
        while offset < size:
            length, version, skip, mask, _, thread = metadata(data, offset)
            end = offset + length
            if version != METADATA_VERSION or end > size or length < _METADATA.size:
                raise ValueError("not a fanotify event of version 3")
            offset += skip
            place = node = new_place = None
            while offset < end:
                kind, length, _, handle_bytes, handle_type = info(data, offset)
                stop = offset + _BEFORE_HANDLE + handle_bytes
                if length < _HEADER:
                    raise ValueError("torn fanotify event")
                key = data[offset + _HEADER : stop]
                offset += length
                if kind == INFO_FID:
                    if handle_bytes and handle_type != _NO_HANDLE:
                        node = key
                elif kind == INFO_DFID_NAME or kind == INFO_OLD_DFID_NAME:
                    place = make(Place, (key, data[stop : data.index(0, stop, offset)]))
                elif kind == INFO_NEW_DFID_NAME:
                    new_place = make(Place, (key, data[stop : data.index(0, stop, offset)]))
            if node is None and place is not None and place[1] == b".":
                node = place[0]
            append(make(Record, (mask, thread, place, node, new_place)))
            offset = end
    except (struct.error, OverflowError) as error:
        raise ValueError("torn fanotify event") from error
    return records
