"""A C project is unpacked, configured, built and tested on MNT: GNU coreutils.

Its tests are about what cp, mv, ln, rm, du, ls, tail and others make of a file system.  What
fails on MNT must fail in a plain directory as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.loads.commands import require, run
from tests.loads.debian import fetch_source
from tests.mounting.mounted import Area

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(3600)]

_TESTED = ("chmod", "cp", "du", "install", "ln", "ls", "mkdir", "mv", "rm", "tail-2", "touch")
_POLLED = frozenset(
    ("tests/tail-2/inotify-dir-recreate.sh", "tests/tail-2/inotify-rotate-resources.sh")
)
"""What tail says of inotify: on FUSE, by what statfs(2) says, it polls in its place."""
_ENVIRONMENT = {
    # It refuses to be configured by root otherwise.
    "FORCE_UNSAFE_CONFIGURE": "1",
    "CFLAGS": "-O0",
    "LC_ALL": "C.UTF-8",
    "MAKEFLAGS": "",
}


def test_coreutils(area: Area) -> None:
    for program, package in (
        ("gcc", "gcc"),
        ("make", "make"),
        ("perl", "perl"),
        ("xz", "xz-utils"),
    ):
        require(program, package)
    archive = fetch_source("coreutils", area.home / "archive")
    run("tar", "-xf", archive, "-C", area.mnt)
    (top,) = (path for path in area.mnt.iterdir() if path.is_dir())
    run("./configure", "--quiet", "--disable-nls", cwd=top, env=_ENVIRONMENT)
    run("make", "-j2", "--quiet", cwd=top, env=_ENVIRONMENT)
    assert run(top / "src" / "echo", "built").stdout == "built\n"

    results = _check(top, _tests(top))
    assert list(results.values()).count("PASS") > len(results) / 2, results
    failed = [name for name, result in results.items() if result not in ("PASS", "SKIP", "XFAIL")]
    if failed:
        plain = area.home / "plain"
        run("cp", "-a", area.src / top.name, plain)
        failed = [name for name in failed if name not in _POLLED]
        natively = _check(plain, failed) if failed else {}
        assert {name: results[name] for name in failed} == natively, _logs(top, failed, natively)
    run("make", "--quiet", "clean", cwd=top, env=_ENVIRONMENT)
    run("rm", "-r", top)
    assert os.listdir(area.src) == []


def _tests(top: Path) -> list[str]:
    return sorted(
        str(path.relative_to(top))
        for name in _TESTED
        for path in (top / "tests" / name).iterdir()
        if path.suffix in (".sh", ".pl") and path.read_bytes().startswith(b"#!")
    )


def _check(top: Path, tests: list[str]) -> dict[str, str]:
    """Runs these tests; the result of each."""
    for name in tests:
        (top / name).with_suffix(".trs").unlink(missing_ok=True)
    run(
        "make", "-k", "-j4", "check", "SUBDIRS=.", f"TESTS={' '.join(tests)}",
        cwd=top, env=_ENVIRONMENT, check=False,
    )  # fmt: skip
    results = {}
    for name in tests:
        lines = (top / name).with_suffix(".trs").read_text().splitlines()
        (results[name],) = {
            line.split()[1] for line in lines if line.startswith(":global-test-result:")
        }
    return results


def _logs(top: Path, failed: list[str], natively: dict[str, str]) -> str:
    differing = [name for name in failed if natively.get(name) in ("PASS", "SKIP")]
    return "\n".join(
        f"== {name}\n{(top / name).with_suffix('.log').read_text(errors='replace')[-3000:]}"
        for name in differing
    )
