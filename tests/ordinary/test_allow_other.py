"""An ordinary user's mount that others may use, where /etc/fuse.conf lets users say so."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount
from tests.mounting.mounted import Ear
from tests.ordinary.area import OrdinaryArea
from tests.ordinary.user import GID, UID

pytestmark = pytest.mark.root
CONFIGURATION = b"/etc/fuse.conf"
NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def allowed(area: OrdinaryArea) -> Iterator[OrdinaryArea]:
    """With ``user_allow_other`` in /etc/fuse.conf for as long as the test takes."""
    made = area.home / "fuse.conf"
    made.write_text("user_allow_other\n")
    mount(os.fsencode(made), CONFIGURATION, flags=MS_BIND)
    try:
        yield area
    finally:
        umount(CONFIGURATION, MNT_DETACH)


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run(
        [*other, *map(str, command)], cwd="/", capture_output=True, text=True, check=False
    )


def test_others_use_it_and_hear(allowed: OrdinaryArea) -> None:
    (allowed.src / "open").mkdir()
    (allowed.src / "open" / "f").write_text("told")
    (allowed.src / "secret").write_text("mine")
    for path in (allowed.src / "open", allowed.src / "open" / "f", allowed.src / "secret"):
        os.chown(path, UID, GID)
    (allowed.src / "secret").chmod(0o600)
    with allowed.mounted("-o", "allow_other"):
        assert as_nobody("cat", allowed.mnt / "open" / "f").stdout == "told"
        assert "Permission denied" in as_nobody("cat", allowed.mnt / "secret").stderr
        assert "Permission denied" in as_nobody("touch", allowed.mnt / "open" / "g").stderr
        # This process is root's, and so another than the user as well.
        with Ear(allowed.mnt / "open", Mask.CREATE | Mask.MODIFY) as ear:
            (allowed.src / "open" / "new").touch()
            ear.hear((Mask.CREATE, "new"))
            (allowed.src / "open" / "f").write_text("told again")
            ear.hear_often((Mask.MODIFY, "f"))
    allowed.assert_nothing_left()


def test_without_it_nobody_else_may(area: OrdinaryArea) -> None:
    (area.src / "f").write_text("told")
    with area.mounted():
        assert "Permission denied" in as_nobody("cat", area.mnt / "f").stderr
    area.assert_nothing_left()
