"""Names that are no text: 255 bytes, not UTF-8, control characters, what mountinfo escapes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.mounting.mounted import SECONDS, Area
from tests.scale.ears import Ears

pytestmark = pytest.mark.root

KINDS = (
    Mask.CREATE | Mask.DELETE | Mask.MODIFY | Mask.ATTRIB | Mask.MOVED_FROM | Mask.MOVED_TO
)  # fmt: skip
EVERY_BYTE = bytes(byte for byte in range(1, 256) if byte != ord("/"))
NAMES = [
    EVERY_BYTE + b"z",
    b"\xff" * 255,
    b"\xc3\x28" + b"\x80" * 253,
    ("ä" * 127 + "x").encode(),
    b" leading and trailing ",
    b"new\nline\ttab\x1b[31m",
    b"\\134\\040\\012",
    b"-rf",
    b"...",
    b"~",
    b"comma,quote\"='",
    b"#12345",
    b".farwatch-0123456789abcdef",
    b"e\xcc\x81",
    b"\xc3\xa9",
]


def test_every_operation_on_each_name(area: Area) -> None:
    with area.mounted():
        for name in NAMES:
            operate(area, name)
            subprocess.run(["find", area.src, "-mindepth", "1", "-delete"], check=True)


def operate(area: Area, name: bytes) -> None:
    src, mnt = os.fsencode(area.src), os.fsencode(area.mnt)
    other = name[:-1] + b"~" if len(name) > 1 else name + b"~"
    here, there = os.path.join(src, name), os.path.join(src, other)
    with Ears(KINDS) as ears:
        ears.add(area.mnt, "")
        os.close(os.open(here, os.O_CREAT | os.O_WRONLY, 0o644))
        Path(os.fsdecode(here)).write_bytes(b"content")
        os.chmod(here, 0o600)
        ears.hear((kind, "", name) for kind in (Mask.CREATE, Mask.MODIFY, Mask.ATTRIB))
        assert os.listdir(mnt) == [name]
        assert Path(os.fsdecode(os.path.join(mnt, name))).read_bytes() == b"content"
        os.rename(here, there)
        ears.hear([(Mask.MOVED_FROM, "", name), (Mask.MOVED_TO, "", other)])
        os.link(there, here)
        ears.heard.clear()
        os.unlink(there)
        ears.hear([(Mask.DELETE, "", other)])
        os.unlink(here)
        ears.hear([(Mask.DELETE, "", name)])
        os.symlink(name, there)
        ears.hear([(Mask.CREATE, "", other)])
        assert os.readlink(os.path.join(mnt, other)) == name
        os.unlink(there)
        ears.heard.clear()
        os.mkdir(here)
        ears.hear([(Mask.CREATE | Mask.ISDIR, "", name)])
        ears.add(os.fsdecode(os.path.join(mnt, name)), "inner")
        os.mkfifo(os.path.join(here, other))
        ears.hear([(Mask.CREATE, "inner", other)])
        os.rename(here, there)
        ears.hear([(Mask.MOVED_TO | Mask.ISDIR, "", other)])
        os.unlink(os.path.join(there, other))
        ears.hear([(Mask.DELETE, "inner", other)])
        # And the other way round: what a program makes here is there.
        os.mkdir(os.path.join(mnt, name))
        assert sorted(os.listdir(src)) == sorted([name, other])


def test_all_of_them_at_once(area: Area) -> None:
    with area.mounted(), Ears(KINDS) as ears:
        ears.add(area.mnt, "")
        for name in NAMES:
            os.close(os.open(os.path.join(os.fsencode(area.src), name), os.O_CREAT, 0o644))
        ears.hear((Mask.CREATE, "", name) for name in NAMES)
        assert sorted(os.listdir(os.fsencode(area.mnt))) == sorted(NAMES)
        for name in NAMES:
            os.unlink(os.path.join(os.fsencode(area.src), name))
        ears.hear((Mask.DELETE, "", name) for name in NAMES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=str(number), marks=() if number in (0, 5, 6) else pytest.mark.long)
        for number, name in enumerate(NAMES)
    ],
)
def test_where_it_is_mounted_and_from(area: Area, name: bytes) -> None:
    """What stands in mountinfo for it, and on a line for a person, is not what it is called."""
    for attribute in ("src", "mnt"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(getattr(area, attribute)), name)))
        path.mkdir()
        setattr(area, attribute, path)
    result = area.run("mount", area.src, area.mnt, "--daemon")
    assert (result.returncode, result.stderr) == (0, "")
    with Ears(KINDS) as ears:
        ears.add(area.mnt, "")
        (area.src / "x").touch()
        ears.hear([(Mask.CREATE, "", b"x")])
    result = area.run("unmount", area.mnt)
    assert (result.returncode, result.stderr) == (0, "")
    area.assert_nothing_left()
    result = area.run("unmount", area.mnt)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr[:-1].isprintable()


def test_a_name_that_is_one_byte_too_long(area: Area) -> None:
    with area.mounted() as process:
        with pytest.raises(OSError, match="File name too long"):
            (area.mnt / ("x" * 256)).touch()
        process.terminate()
        assert process.wait(SECONDS) == 0
