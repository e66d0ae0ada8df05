"""How the command line answers: statuses, and one line for what goes wrong."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from farwatch import __version__
from farwatch.cli import app
from farwatch.cli.failure import Failure


def farwatch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "farwatch", *arguments],
        env={"PATH": "/usr/sbin:/usr/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``farwatch unmount`` raise ``error``."""

    def raises() -> None:
        raise error

    monkeypatch.setattr(
        app.Commands, "get_command", lambda *_: click.Command("unmount", callback=raises)
    )


def test_version() -> None:
    result = farwatch("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"farwatch {__version__}\n", "")


def test_help_lists_every_command_without_importing_any() -> None:
    probe = (
        "import sys; from farwatch.cli.app import run; status = run(['--help'])\n"
        "commands = {'farwatch.cli.' + name for name in ('mount', 'unmount', 'demo')}\n"
        "sys.exit(status or bool(commands & set(sys.modules)) or 'rich' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    for name in ("mount", "unmount", "demo"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", app.SUMMARIES)
def test_every_command_has_help(name: str) -> None:
    result = farwatch(name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: farwatch {name} ")


@pytest.mark.parametrize(
    "arguments", [("nope",), ("--nope",), ("unmount",), ("unmount", "a", "b"), ("demo", "x")]
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    result = farwatch(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("farwatch: ")
    assert result.stderr.count("\n") == 1
    assert "--help" in result.stderr


def test_without_arguments_it_shows_help() -> None:
    result = farwatch()
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: farwatch ")


def test_a_failure_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, Failure("busy", "/a\nb\x1b[1m\udcff", "wait"))
    assert app.run(["unmount"]) == 1
    assert capsys.readouterr() == ("", "farwatch: busy: /a\\nb\\x1b[1m\\udcff; wait\n")


def test_the_unexpected_is_one_line_that_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FARWATCH_DEBUG", raising=False)
    failing(monkeypatch, ValueError("two\nlines"))
    assert app.run(["unmount"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("farwatch: unexpected ValueError: two lines (")
    assert "FARWATCH_DEBUG=1" in err


def test_the_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FARWATCH_DEBUG", "1")
    failing(monkeypatch, ValueError("why"))
    assert app.run(["unmount"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_only_ends_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert app.run(["unmount"]) == 130
    assert capsys.readouterr() == ("", "\n")
