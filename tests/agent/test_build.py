"""The agent as one file: what is in it, and that it needs nothing else."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from farwatch import __version__
from farwatch.agent.endings import Status
from tests.agent.running import bare, build
from tests.stage import PROJECT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what it is built from; the script in it builds from that."""
    for name in ("src", "scripts", "packaging"):
        shutil.copytree(
            PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_same_sources_make_the_same_bytes(pyz: Path, copy: Path) -> None:
    """Elsewhere, later, with other times and modes, and in another order of the directory."""
    for number, path in enumerate(sorted(copy.rglob("*.py"))):
        os.utime(path, (1e9 + number, 1e9 + number))
        path.chmod(0o600)
    result = run([sys.executable, str(copy / "scripts" / "build-agent")], TZ="Asia/Kathmandu")
    assert (result.returncode, result.stderr) == (0, "")
    made = copy / "dist" / "farwatch-agent.pyz"
    assert made.read_bytes() == pyz.read_bytes()
    assert made.stat().st_mode & 0o777 == 0o755


def test_it_is_not_written_again_when_nothing_has_changed(tmp_path: Path) -> None:
    first = build(tmp_path).stat()
    again = build(tmp_path).stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert sorted(os.listdir(tmp_path)) == ["farwatch-agent.pyz", "farwatch-agent@.service"]


def test_its_modules_are_those_that_are_imported(pyz: Path) -> None:
    """Neither more, as a real import shows, nor less."""
    probe = (
        f"import sys; sys.path.insert(0, {str(pyz)!r})\n"
        "import farwatch.agent.__main__\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'farwatch'))\n"
        "others = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*(others - set(sys.stdlib_module_names) - {'farwatch', '__main__'}))\n"
    )
    result = run([sys.executable, "-I", "-S", "-c", probe])
    assert result.returncode == 0, result.stderr
    imported, foreign = result.stdout.split("\n")[:2]
    assert foreign == ""
    with zipfile.ZipFile(pyz) as archive:
        names = [name.removesuffix(".py").replace("/", ".") for name in archive.namelist()]
    packed = {name.removesuffix(".__init__") for name in names} - {"__main__"}
    assert packed == set(imported.split())


@pytest.mark.parametrize(
    "line",
    [
        "import click",
        "from rich import print",
        "def f():\n    import click.core",
        "from . import x",
    ],
)
def test_what_a_guest_may_not_have_fails_the_build(copy: Path, line: str) -> None:
    changed = copy / "src" / "farwatch" / "linux" / "libc.py"
    changed.write_text(f"{changed.read_text()}\n{line}\n")
    result = run([sys.executable, str(copy / "scripts" / "build-agent")])
    assert result.returncode == 1
    assert result.stderr.startswith(f"farwatch: cannot build the agent: {changed}:")
    assert result.stderr.count("\n") == 1
    assert not (copy / "dist").exists()


def test_a_module_that_an_import_needs_comes_along(copy: Path) -> None:
    linux = copy / "src" / "farwatch" / "linux"
    (linux / "another.py").write_text("import json\n")
    kept = copy / "src" / "farwatch" / "agent" / "kept.py"
    kept.write_text(f"{kept.read_text()}\nfrom farwatch.linux import another\n")
    result = run([sys.executable, str(copy / "scripts" / "build-agent")])
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(copy / "dist" / "farwatch-agent.pyz") as archive:
        assert "farwatch/linux/another.py" in archive.namelist()


def test_it_runs_by_itself_and_without_site_packages(pyz: Path) -> None:
    for command in ([str(pyz)], bare(pyz)):
        result = run([*command, "--version"])
        assert (result.returncode, result.stdout) == (0, f"farwatch {__version__}\n")
        assert result.stderr == ""


def test_every_source_in_it_is_for_the_oldest_python(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        for name in archive.namelist():
            ast.parse(archive.read(name), name, feature_version=(3, 11))


def test_its_entries_hold_nothing_of_this_machine(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert (entry.compress_type, entry.create_system) == (zipfile.ZIP_STORED, 3)
            assert str(PROJECT).encode() not in archive.read(entry)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = build(tmp_path).parent / "farwatch-agent@.service"
    text = unit.read_text()
    (tmp_path / "mnt-shared.mount").write_text("[Mount]\nWhat=shared\nWhere=/mnt/shared\n")
    instance = tmp_path / "farwatch-agent@mnt-shared.service"
    instance.write_text(text)
    result = run(["systemd-analyze", "verify", str(instance)], SYSTEMD_UNIT_PATH=f"{tmp_path}:")
    assert (result.returncode, result.stderr) == (0, "")
    # The check can fail.
    instance.write_text(text.replace("Type=notify", "Type=notfy") + "Nonsense=1\n")
    result = run(["systemd-analyze", "verify", str(instance)], SYSTEMD_UNIT_PATH=f"{tmp_path}:")
    assert "Nonsense" in result.stderr


def test_the_unit_knows_the_statuses() -> None:
    text = (PROJECT / "packaging" / "farwatch-agent@.service").read_text()
    for_good = (Status.USAGE, Status.REPLACED, Status.NOT_SERVED)
    assert f"RestartPreventExitStatus={' '.join(str(int(status)) for status in for_good)}" in text
