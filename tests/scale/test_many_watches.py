"""A program that watches ten thousand directories, as an editor or a bundler does."""

from __future__ import annotations

import random
import subprocess
import threading

import pytest

from farwatch.events import Mask
from tests.mounting.mounted import Area
from tests.scale.ears import Ears

pytestmark = pytest.mark.root

KINDS = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF
READING = KINDS | Mask.OPEN
FEW = pytest.param(500, id="500")
MANY = pytest.param(10_000, id="10,000", marks=pytest.mark.long)


def places(count: int) -> list[str]:
    return [f"{number // 100:03d}/{number % 100:02d}" for number in range(count)]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_every_one_is_heard(area: Area, count: int) -> None:
    names = places(count)
    for name in names:
        (area.src / name).mkdir(parents=True)
    order = random.Random(count).sample(names, count)
    with area.mounted(), Ears(KINDS) as ears:
        for name in names:
            ears.add(area.mnt / name, name)

        def change() -> None:
            for name in order:
                (area.src / name / "new").touch()
                (area.src / name / "new").rename(area.src / name / "moved")

        changing = threading.Thread(target=change)
        changing.start()
        try:
            for kind, what in (
                (Mask.CREATE, b"new"),
                (Mask.MOVED_FROM, b"new"),
                (Mask.MOVED_TO, b"moved"),
            ):
                ears.hear((kind, name, what) for name in names)
        finally:
            changing.join()
        removing = threading.Thread(
            target=subprocess.run, args=(["rm", "-r", *map(str, area.src.iterdir())],)
        )
        removing.start()
        try:
            ears.hear((Mask.DELETE, name, b"moved") for name in names)
            ears.hear(
                (kind, name, b"") for kind in (Mask.DELETE_SELF, Mask.IGNORED) for name in names
            )
        finally:
            removing.join()
        told = [(kind, name, what) for kind, name, what in ears.heard if what]
        assert len(told) == len(set(told)), "something was told twice"
        assert not list(area.mnt.iterdir())


@pytest.mark.parametrize("count", [FEW, MANY])
def test_what_is_read_is_heard_where_that_is_asked_for(area: Area, count: int) -> None:
    """OPEN needs the scan of /proc to find each watch: all of them are told to the server."""
    names = places(count)
    for name in names:
        (area.src / name).mkdir(parents=True)
        (area.src / name / "f").touch()
    with area.mounted(), Ears(READING) as ears:
        for name in names:
            ears.add(area.mnt / name, name)
        # Such events come from when the watch has been found.
        last = names[-1]
        stop = threading.Event()

        def read() -> None:
            while not stop.wait(0.05):
                (area.src / last / "f").read_bytes()

        reading = threading.Thread(target=read)
        reading.start()
        try:
            ears.hear([(Mask.OPEN, last, b"f")])
        finally:
            stop.set()
            reading.join()
        for name in random.Random(count).sample(names, 20):
            (area.src / name / "f").read_bytes()
            ears.hear([(Mask.OPEN, name, b"f")])


def test_many_names_in_one_directory(area: Area) -> None:
    names = [b"%05d" % number for number in range(500)]
    with area.mounted(), Ears(KINDS) as ears:
        ears.add(area.mnt, "")
        for name in names:
            (area.src / name.decode()).touch()
        ears.hear((Mask.CREATE, "", name) for name in names)
        assert len(list(area.mnt.iterdir())) == len(names)
        for name in names:
            (area.src / name.decode()).unlink()
        ears.hear((Mask.DELETE, "", name) for name in names)
