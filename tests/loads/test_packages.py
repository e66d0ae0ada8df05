"""pip and npm install large trees on MNT, and what is installed there works."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.loads.commands import contents, require, run
from tests.mounting.mounted import Area
from tests.stage import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.long]

_NPM = ("typescript@5.4.5", "eslint@8.57.0", "webpack@5.91.0", "webpack-cli@5.1.4")


def test_pip(area: Area) -> None:
    """An environment with all that the project's own tests use, mypy and ruff among it."""
    venv = area.mnt / "venv"
    run(sys.executable, "-m", "venv", venv)
    python = venv / "bin" / "python"
    cache = {"PIP_CACHE_DIR": str(area.mnt / "cache")}
    requirements = PROJECT / "requirements" / "dev.txt"
    run(python, "-m", "pip", "install", "-q", "-r", requirements, env=cache)
    assert run(python, "-m", "pip", "check").stdout.startswith("No broken requirements")
    (area.mnt / "sample.py").write_text("x: int = 'no'\n")
    said = run(python, "-m", "mypy", "sample.py", cwd=area.mnt, check=False).stdout
    assert "Incompatible types" in said
    run(venv / "bin" / "ruff", "check", area.mnt / "sample.py")
    run(python, "-m", "compileall", "-q", "-f", venv / "lib")
    assert contents(area.mnt) == contents(area.src)
    run(python, "-m", "pip", "uninstall", "-q", "-y", "mypy", "hypothesis")
    run("rm", "-r", venv)
    assert not (area.src / "venv").exists()


def test_npm(area: Area) -> None:
    npm = require("npm", "npm")
    project = area.mnt / "project"
    project.mkdir()
    environment = {
        "HOME": str(area.home),
        "npm_config_cache": str(area.mnt / "cache"),
        "npm_config_update_notifier": "false",
    }
    run(npm, "init", "-y", cwd=project, env=environment)
    run(npm, "install", "--no-audit", "--no-fund", *_NPM, cwd=project, env=environment)
    assert len(list((project / "node_modules").iterdir())) > 100
    run(npm, "ls", "--all", cwd=project, env=environment)
    (project / "a.ts").write_text("export const answer: number = 6 * 7; console.log(answer);\n")
    bin_ = project / "node_modules" / ".bin"
    run(
        bin_ / "tsc",
        "--skipLibCheck",
        "--outDir",
        "out",
        "--module",
        "commonjs",
        "a.ts",
        cwd=project,
    )
    assert run("node", project / "out" / "a.js").stdout == "42\n"
    run(bin_ / "webpack", "--mode", "production", "--entry", "./out/a.js", cwd=project)
    assert run("node", project / "dist" / "main.js").stdout == "42\n"
    assert contents(project) == contents(Path(area.src, "project"))
    run(npm, "ci", "--no-audit", "--no-fund", cwd=project, env=environment)
    assert contents(project) == contents(Path(area.src, "project"))
    run("rm", "-r", project / "node_modules")
    assert not os.path.lexists(area.src / "project" / "node_modules")
