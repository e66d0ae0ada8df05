"""What is read when MODIFY is told is the new content, also without passthrough."""

from __future__ import annotations

from pathlib import Path

from tests.rules.rule import Rule, rule


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


@rule("true_mtime_at_modify")
def test_an_overwrite_of_the_same_size(rule: Rule) -> None:
    """The client's kernel compares size and mtime, and the replay has just given it both."""
    with rule.scene("without_passthrough", furnish=one_file) as scene:
        watcher = scene.watcher(root=".")
        with (scene.mnt / "x").open("rb", buffering=0) as file:
            # Into the client's page cache, which the next open would empty.
            assert file.read() == b"old"
            with (scene.src / "x").open("r+b", buffering=0) as remote:
                remote.write(b"new")
                watcher.wait_for_line("root MODIFY x")
                file.seek(0)
                seen = file.read()
        rule.expect(seen, held=b"new", harm=b"old")
