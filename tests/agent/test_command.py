"""What the command cannot do: one line, a status that says whether to try again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farwatch.agent.endings import Status
from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount
from tests.agent.running import bare, served
from tests.linux.areas import mounted
from tests.mounting.mounted import Area
from tests.stage import farwatch_command, farwatch_environment

FORMS = pytest.mark.parametrize("form", ["command", "module", "file"])


def command(form: str, pyz: Path) -> list[str]:
    """The three ways in which it is started."""
    return {
        "command": farwatch_command("agent"),
        "module": [sys.executable, "-P", "-m", "farwatch.agent"],
        "file": bare(pyz),
    }[form]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        env=farwatch_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def assert_refused(
    result: subprocess.CompletedProcess[str], status: Status, start: str, *words: str
) -> None:
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith(start)
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@FORMS
@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--nope",), ("--stand", "a")])
def test_wrong_usage(form: str, pyz: Path, arguments: tuple[str, ...]) -> None:
    result = run(*command(form, pyz), *arguments)
    assert_refused(result, Status.USAGE, "farwatch agent: ", "; try --help")


@FORMS
def test_help_and_version(form: str, pyz: Path) -> None:
    for option in ("-h", "--help"):
        result = run(*command(form, pyz), option)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("Usage: farwatch agent ")
        assert "MNT" in result.stdout
        assert "--standby" in result.stdout
    result = run(*command(form, pyz), "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("farwatch ")


@pytest.mark.root
@FORMS
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{}/none", "no such directory"),
        ("{}/file", "not a directory"),
        ("{}/dangling", "no such directory"),
        ("{}/loop", "symbolic links"),
        ("{}", "neither virtiofs nor FUSE is mounted there"),
        ("/proc", "it is on proc"),
        ("/", "neither virtiofs nor FUSE is mounted there"),
        ("", "no such directory"),
    ],
)
def test_what_is_no_mount_of_its_kind(
    form: str, pyz: Path, tmp_path: Path, path: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    path = path.format(tmp_path)
    result = run(*command(form, pyz), path)
    assert_refused(result, Status.NOT_SERVED, f"farwatch agent: {path}: ", words)


@pytest.mark.root
def test_a_path_that_would_break_the_line(pyz: Path) -> None:
    for path in ("/no\nsuch\x1b[2J", os.fsdecode(b"/\xff\n")):
        result = run(*bare(pyz), path)
        assert_refused(result, Status.NOT_SERVED, "farwatch agent: '/", "no such directory")
        assert result.stderr.rstrip("\n").isprintable()


@pytest.mark.root
def test_another_kind_of_file_system(pyz: Path) -> None:
    with mounted("none", "tmpfs") as point:
        result = run(*bare(pyz), point)
    assert_refused(result, Status.NOT_SERVED, "farwatch agent: ", "it is on tmpfs")


@pytest.mark.root
def test_a_fuse_server_that_is_not_farwatch(pyz: Path, area: Area) -> None:
    with served(area, "foreign"):
        result = run(*bare(pyz), area.mnt)
        assert_refused(
            result, Status.NOT_SERVED, "farwatch agent: ", ": its server is not farwatch\n"
        )
        # It has let go of everything.
        umount(os.fsencode(area.mnt))


@pytest.mark.root
def test_a_server_that_has_died(pyz: Path, area: Area) -> None:
    with served(area) as server:
        server.process.kill()
        server.status()
        result = run(*bare(pyz), area.mnt)
    assert_refused(result, Status.NOT_SERVED, "farwatch agent: ", ": its server is gone; unmount")


@pytest.mark.root
def test_a_directory_in_the_mount_or_a_part_of_it(pyz: Path, area: Area) -> None:
    (area.src / "sub").mkdir()
    part = area.home / "part"
    part.mkdir()
    with served(area):
        result = run(*bare(pyz), area.mnt / "sub")
        assert_refused(result, Status.NOT_SERVED, "farwatch agent: ", f"is at '{area.mnt}'")
        mount(os.fsencode(area.mnt / "sub"), os.fsencode(part), None, MS_BIND)
        try:
            result = run(*bare(pyz), part)
        finally:
            umount(os.fsencode(part), MNT_DETACH)
    # A bind mount of a directory is a mount point, too.
    assert_refused(result, Status.NOT_SERVED, "farwatch agent: ", "only a part of its file system")


@pytest.mark.root
def test_whom_it_needs_to_be(pyz: Path) -> None:
    """Nobody, and root without what makes it root."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with pyz.open("rb") as program:
        # Its directory may not be read by nobody.
        command = [*nobody, sys.executable, "-I", "-S", f"/proc/self/fd/{program.fileno()}", "/"]
        result = subprocess.run(
            command,
            pass_fds=[program.fileno()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert_refused(result, Status.NOT_SERVED, "farwatch agent: /: ", "needs root")
    for missing in ("sys_admin", "setuid", "dac_read_search"):
        result = run("setpriv", f"--bounding-set=-{missing}", *bare(pyz), "/")
        assert_refused(
            result, Status.NOT_SERVED, "farwatch agent: /: ", f"needs CAP_{missing.upper()};"
        )


@pytest.mark.root
def test_a_user_namespace(pyz: Path) -> None:
    """Its root is not the root that the server asks for, and has no ids to mark with."""
    result = run("unshare", "--user", "--map-root-user", *bare(pyz), "/")
    assert_refused(
        result, Status.NOT_SERVED, "farwatch agent: /: ", "run it outside of the user namespace"
    )
