"""The declarations of abi/fuse.py against linux/fuse.h: the system's, and captures.

No expected number here comes from farwatch: a C compiler worked them out from the
kernel's header (golden/header.py), or, for what no header at hand declares, they stand
below with their origin.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from farwatch.abi import fuse
from tests.abi.golden.header import LAYOUTS, SINCE, ask, compiler, values

GOLDEN = Path(__file__).with_name("golden")

FROM_7_45 = {
    "FUSE_NOTIFY_INC_EPOCH": 8,
    "FUSE_NOTIFY_PRUNE": 9,
    "FUSE_COPY_FILE_RANGE_64": 53,
}
"""include/uapi/linux/fuse.h of Linux 6.18 (INC_EPOCH: 7.44, the others: 7.45)."""

TOO_NEW = {"fuse_statx", "fuse_statx_in", "fuse_statx_out"}
"""Not in the headers of 7.38, which Debian 12 has."""

PRUNE_OUT_7_45 = [("count", 0, 4), ("padding", 4, 4), ("spare", 8, 8)]
"""``struct fuse_notify_prune_out`` there: u32 count, u32 padding, u64 spare."""


class Facts(NamedTuple):
    """What a header says."""

    values: dict[str, int]
    sizes: dict[str, int]
    rests: dict[str, int]
    """Offset of the field that a declaration leaves to another one."""
    fields: dict[str, list[tuple[str, int, int]]]


def parse(text: str) -> Facts:
    facts = Facts({}, {}, {}, {})
    for line in text.splitlines():
        words = line.split()
        match words[0]:
            case "value":
                facts.values[words[1]] = int(words[2])
            case "sizeof":
                facts.sizes[words[1]] = int(words[2])
            case "rest":
                facts.rests[words[1]] = int(words[2])
            case "offset":
                place = (words[2], int(words[3]), int(words[4]))
                facts.fields.setdefault(words[1], []).append(place)
    return facts


def declared_fields(layout: struct.Struct) -> Iterator[tuple[int, int]]:
    """Offset and size of each field of a little-endian Struct, which has no holes."""
    assert layout.format.startswith("<")
    offset, count = 0, ""
    for code in layout.format[1:]:
        if code.isdigit():
            count += code
            continue
        size = struct.calcsize("<" + code)
        for _ in range(int(count or 1)):
            if code != "x":
                yield offset, size
            offset += size
        count = ""


def structs() -> dict[str, struct.Struct]:
    return {name: value for name, value in vars(fuse).items() if isinstance(value, struct.Struct)}


@pytest.fixture(scope="session", params=["7.41", "system"])
def facts(request: pytest.FixtureRequest) -> Facts:
    if request.param != "system":
        return parse((GOLDEN / f"fuse-{request.param}.txt").read_text())
    cc = compiler()
    if cc is None or not Path("/usr/include/linux/fuse.h").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler with linux/fuse.h, and CI=true", pytrace=False)
        pytest.skip("NOT COMPARED WITH THE SYSTEM'S linux/fuse.h: no C compiler; install gcc")
    return parse(ask(cc))


@pytest.mark.parametrize("name", LAYOUTS)
def test_struct(facts: Facts, name: str) -> None:
    declared = structs()[name]
    layout = LAYOUTS[name]
    if layout.struct not in facts.sizes:
        if layout.struct in TOO_NEW:
            assert facts.values["FUSE_KERNEL_MINOR_VERSION"] < SINCE[layout.struct]
            return  # the capture of 7.41 has it
        assert layout.struct == "fuse_notify_prune_out", "the header is too old for it"
        expected, size = PRUNE_OUT_7_45, 16
    else:
        expected = facts.fields[layout.struct]
        size = facts.rests[layout.struct] if layout.rest else facts.sizes[layout.struct]
    assert declared.size == size
    places = list(declared_fields(declared))
    known = {field: (offset, length) for field, offset, length in expected}
    fields = layout.fields.split()
    assert len(fields) == len(places)
    found = dict(zip(fields, places, strict=True))
    assert found | known == found
    # Only what the system's older header calls otherwise may be missing.
    assert set(fields) - set(known) <= {"backing_id", "max_stack_depth"}


@pytest.mark.parametrize("name", values())
def test_number(facts: Facts, name: str) -> None:
    says = values()[name]
    if name in FROM_7_45:
        assert says == FROM_7_45[name]
        assert facts.values.get(name, says) == says
        return
    if name not in facts.values and facts.values["FUSE_KERNEL_MINOR_VERSION"] < 41:
        return  # too new for the system's header: the capture of 7.41 has it
    assert says == facts.values[name]


def test_every_struct_is_compared() -> None:
    own_tests = {"INIT_IN_SHORT", "SETXATTR_IN_COMPAT"}
    assert set(structs()) == set(LAYOUTS) | own_tests


def test_every_number_is_compared() -> None:
    compared = set(values().values())
    named = {
        name: value
        for name, value in vars(fuse).items()
        if name.isupper() and type(value) is int and name not in ("OLDEST_MINOR", "NEWEST_MINOR")
    }
    own_tests = {"ENTRY_OUT_SIZE", "NAME_MAX"}
    assert {value for name, value in named.items() if name not in own_tests} <= compared


def test_short_forms_of_structs(facts: Facts) -> None:
    # FUSE_COMPAT_SETXATTR_IN_SIZE of linux/fuse.h 7.33, and fuse_init_in of 7.35.
    assert fuse.SETXATTR_IN_COMPAT.size == 8
    assert fuse.INIT_IN_SHORT.size == 16
    places = [place[1:] for place in facts.fields["fuse_init_in"]]
    assert list(declared_fields(fuse.INIT_IN_SHORT)) == places[:4]


def test_entry_is_its_head_and_the_attributes(facts: Facts) -> None:
    assert facts.sizes["fuse_entry_out"] == fuse.ENTRY_OUT_SIZE
    assert facts.sizes["fuse_attr_out"] == fuse.ATTR_OUT_HEAD.size + fuse.ATTR.size


def test_name_max() -> None:
    # FUSE_NAME_MAX of fs/fuse/fuse_i.h, Linux 2.6.14 and later.
    assert fuse.NAME_MAX == 1024


def test_directory_entries_are_padded_to_8_bytes(facts: Facts) -> None:
    # FUSE_DIRENT_SIZE: FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + namelen), 64-bit alignment.
    head = facts.rests["fuse_dirent"]
    for length in range(300):
        size = fuse.dirent_size(length)
        assert size % 8 == 0
        assert head + length <= size < head + length + 8


@pytest.mark.parametrize(
    ("asks", "since"),
    [
        (fuse.has_noflush, 35),
        (fuse.has_init_ext, 36),
        (fuse.takes_passthrough, 40),
        (fuse.has_prune, 45),
    ],
)
def test_since_when_something_is_known(asks: object, since: int) -> None:
    # The changelog at the top of linux/fuse.h.
    assert callable(asks)
    assert [minor for minor in range(31, 50) if asks(minor)] == list(range(since, 50))


def test_the_range_of_versions() -> None:
    assert (fuse.OLDEST_MINOR, fuse.NEWEST_MINOR) == (31, 45)
