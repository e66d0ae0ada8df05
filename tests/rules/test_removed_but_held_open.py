"""A file that the remote side holds open dies when it is closed, not when it is removed."""

from __future__ import annotations

from pathlib import Path

from tests.rules.rule import Rule, rule


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


@rule("never_pins")
def test_the_end_comes_with_the_remote_sides_last_close(rule: Rule) -> None:
    with rule.scene(furnish=one_file) as scene:
        watcher = scene.watcher(root=".", file="x")
        with (scene.src / "x").open("ab", buffering=0) as file:
            (scene.src / "x").unlink()
            at_the_removal = watcher.told()
            file.write(b"more")
            at_the_write = watcher.told()
        at_the_close = watcher.told()
        rule.expect(
            (at_the_removal, at_the_write, at_the_close),
            held=(
                ["file ATTRIB", "root DELETE x"],
                ["root MODIFY x", "file MODIFY"],
                ["root CLOSE_WRITE x", "file CLOSE_WRITE", "file DELETE_SELF", "file IGNORED"],
            ),
            harm=(
                ["file ATTRIB", "file DELETE_SELF", "file IGNORED", "root DELETE x"],
                ["root MODIFY x"],
                ["root CLOSE_WRITE x"],
            ),
        )
