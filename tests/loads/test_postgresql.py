"""PostgreSQL with its data on MNT: initdb, pgbench, a crash, and its own checks."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loads.commands import require, run
from tests.mounting.mounted import Area, wait_until

pytestmark = [pytest.mark.root, pytest.mark.long]

_SCALE, _CLIENTS, _TRANSACTIONS = 3, 4, 400


class Cluster:
    """A server of PostgreSQL, as its own user, reached by a socket beside the mount."""

    def __init__(self, area: Area, programs: Path) -> None:
        self._programs = programs
        self._user = pwd.getpwnam("postgres").pw_uid
        self.data = area.mnt / "data"
        self.sockets = area.home / "sockets"
        for directory in (self.data, self.sockets):
            directory.mkdir(mode=0o700)
            os.chown(directory, self._user, self._user)
        self._log = self.sockets / "log"

    def run(self, program: str, *arguments: str | Path) -> str:
        environment = {"PGHOST": str(self.sockets), "LC_ALL": "C.UTF-8", "HOME": "/"}
        return run(self._programs / program, *arguments, env=environment, user=self._user).stdout

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self._log, *arguments)

    def start(self) -> None:
        options = f"-k {self.sockets} -h '' -c shared_buffers=16MB -c max_wal_size=64MB"
        self.control("start", "-o", options)

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def ask(self, query: str) -> str:
        return self.run("psql", "-At", "-d", "postgres", "-c", query).strip()

    def kill(self) -> None:
        """All its processes, as a crash would."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _group(pid), "the end of its processes")


def _group(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.getsid(int(name)) == session:
                    found.append(int(name))
            except ProcessLookupError:
                continue
    return found


@pytest.fixture
def cluster(area: Area) -> Iterator[Cluster]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        require("initdb", "postgresql")
    made = Cluster(area, found[-1].parent)
    made.run("initdb", "-D", made.data, "-k", "-A", "trust")
    made.start()
    try:
        yield made
    finally:
        if (made.data / "postmaster.pid").exists():
            made.control("stop", "-m", "immediate")


def test_pgbench(cluster: Cluster) -> None:
    cluster.run("pgbench", "-i", "-q", "-s", str(_SCALE), "postgres")
    said = cluster.run(
        "pgbench", "-c", str(_CLIENTS), "-j", "2", "-t", str(_TRANSACTIONS), "postgres"
    )
    assert f"processed: {_CLIENTS * _TRANSACTIONS}/{_CLIENTS * _TRANSACTIONS}" in said
    _must_balance(cluster, _CLIENTS * _TRANSACTIONS)
    cluster.ask("create extension amcheck")
    cluster.run("pg_amcheck", "--heapallindexed", "postgres")
    cluster.ask("create table t as select i, md5(i::text) m from generate_series(1, 100000) i")
    cluster.kill()
    cluster.start()
    _must_balance(cluster, _CLIENTS * _TRANSACTIONS)
    assert cluster.ask("select count(distinct m) from t") == "100000"
    cluster.ask("vacuum full")
    cluster.control("stop")
    said = cluster.run("pg_checksums", "--check", "-D", cluster.data)
    assert "Bad checksums:  0" in said


def _must_balance(cluster: Cluster, transactions: int) -> None:
    sums = [
        cluster.ask(f"select sum({column}) from pgbench_{table}")
        for table, column in (
            ("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"),
            ("history", "delta"),
        )
    ]  # fmt: skip
    assert len(set(sums)) == 1
    assert cluster.ask("select count(*) from pgbench_history") == str(transactions)


def test_a_second_server_is_refused(cluster: Cluster, area: Area) -> None:
    """Its own guard against two servers on one directory, through the other side."""
    with pytest.raises(AssertionError, match="lock file"):
        cluster.run("postgres", "-D", area.src / "data", "-k", cluster.sockets, "-h", "")
    os.kill(cluster.pid, 0)
    assert cluster.ask("select 1") == "1"
    cluster.control("stop", "-m", "fast")
