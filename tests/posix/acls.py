"""Access control lists, as the extended attributes that they are (acl(5))."""

from __future__ import annotations

import struct

# linux/posix_acl.h and posix_acl_xattr.h
_ENTRY = struct.Struct("<HHI")
_ID = {"user": 0x02, "group": 0x08}
_TAG = {"owner": 0x01, "group owner": 0x04, "mask": 0x10, "other": 0x20}
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(
    owner: int, named: dict[tuple[str, int], int], group: int, mask: int | None, other: int
) -> bytes:
    """The value of such an attribute; ``named`` has (``user`` or ``group``, id)."""
    entries = [(_TAG["owner"], owner, 0xFFFFFFFF)]
    entries += [
        (_ID[kind], bits, id_) for (kind, id_), bits in sorted(named.items()) if kind == "user"
    ]
    entries.append((_TAG["group owner"], group, 0xFFFFFFFF))
    entries += [
        (_ID[kind], bits, id_) for (kind, id_), bits in sorted(named.items()) if kind == "group"
    ]
    if mask is not None:
        entries.append((_TAG["mask"], mask, 0xFFFFFFFF))
    entries.append((_TAG["other"], other, 0xFFFFFFFF))
    return struct.pack("<I", 2) + b"".join(_ENTRY.pack(*entry) for entry in entries)
