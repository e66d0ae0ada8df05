"""SQLite: a database that processes on MNT and on SRC write to at the same time.

Its locks are fcntl's.  With a write-ahead log there is an index in shared memory as well,
which is a file that both sides have mapped.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loads.commands import SECONDS, require, run
from tests.mounting.mounted import Area

pytestmark = [pytest.mark.root, pytest.mark.long]

_WRITER = r"""
import os, sqlite3, sys

path, mode, me, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
database = sqlite3.connect(path, timeout=600, isolation_level=None)
assert database.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
database.execute("pragma synchronous=off")
for turn in range(turns):
    database.execute("begin immediate")
    (total,) = database.execute("select total from counter").fetchone()
    (rows,) = database.execute("select count(*) from entries").fetchone()
    assert rows == total, (rows, total)
    database.execute("insert into entries values (?, ?, ?)", (me, turn, os.urandom(300)))
    database.execute("update counter set total = ?", (total + 1,))
    if turn % 7 == 3:
        database.execute("rollback")
        database.execute("begin immediate")
        (total,) = database.execute("select total from counter").fetchone()
        database.execute("insert into entries values (?, ?, ?)", (me, turn, b"again"))
        database.execute("update counter set total = ?", (total + 1,))
    database.execute("commit")
database.close()
"""
_TURNS = 150


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_two_sides_write(area: Area, mode: str) -> None:
    database = sqlite3.connect(area.src / "d.sqlite")
    database.execute(f"pragma journal_mode={mode}")
    database.execute("create table counter (total integer)")
    database.execute("create table entries (who integer, turn integer, data blob)")
    database.execute("create unique index once on entries (who, turn)")
    database.execute("insert into counter values (0)")
    database.commit()
    database.close()
    sides = [area.src, area.mnt, area.mnt]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, side / "d.sqlite", mode, str(me), str(_TURNS)]
        )
        for me, side in enumerate(sides)
    ]
    try:
        assert [writer.wait(SECONDS) for writer in writers] == [0] * len(writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    # MNT first: what its first reader finds is what it is told as it locks.
    for side in (area.mnt, area.src):
        _must_be_whole(side / "d.sqlite", len(sides) * _TURNS)


def _must_be_whole(path: Path, rows: int) -> None:
    database = sqlite3.connect(path)
    assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    counted = database.execute("select count(*) from entries").fetchone()
    by_each = database.execute(
        "select who, count(*), max(turn) from entries group by who"
    ).fetchall()
    assert counted[0] == rows, (path, by_each)
    assert database.execute("select total from counter").fetchone() == (rows,)
    database.close()


def test_the_shell(area: Area) -> None:
    """A larger database, made, vacuumed and read back, and its dump compared."""
    sqlite = require("sqlite3", "sqlite3")
    script = (
        "pragma page_size=1024; pragma mmap_size=268435456;"
        "create table t (a integer primary key, b text, c real);"
        "with recursive n(i) as (values(1) union all select i+1 from n where i < 60000)"
        " insert into t select i, hex(randomblob(40)), i * 1.5 from n;"
        "create index tb on t (b); delete from t where a % 3 = 0; vacuum;"
        "pragma integrity_check;"
    )
    assert run(sqlite, area.mnt / "s.sqlite", script).stdout.splitlines()[-1] == "ok"
    dumps = [run(sqlite, side / "s.sqlite", ".dump").stdout for side in (area.mnt, area.src)]
    assert dumps[0] == dumps[1]
    assert dumps[0].count("INSERT") == 40_000
