"""Command lines of virtiofsd, as they are written by those who start it."""

from __future__ import annotations

import logging
from typing import Any

import click
import pytest

from farwatch.abi.fsnotify import Dialect
from farwatch.cli.virtiofsd import given, virtiofsd
from farwatch.session.settings import Caching
from farwatch.virtiofsd.compat import read_compat
from farwatch.virtiofsd.errors import BadOption
from farwatch.virtiofsd.options import DAY, Options, read_options
from farwatch.virtiofsd.table import BY_COMPAT, SPECS, Effect

AUTO, NEVER = Caching(1, 1), Caching(0, 0, direct=True)
ALWAYS, METADATA = Caching(1, DAY), Caching(1, DAY, direct=True)


def parse(line: str) -> Options:
    """What a command line stands for."""
    with virtiofsd.make_context("virtiofsd", line.split()) as context:
        values: dict[str, Any] = dict(context.params)
    compat = values.pop("compat")
    values.pop("version")
    return read_options(given(values), compat)


LINES: dict[str, tuple[str, dict[str, object], list[str]]] = {
    # The command line that QEMU's documentation gives (docs/tools/virtiofsd.rst).
    "qemu": (
        "--socket-path=/var/run/vm001-vhost-fs.sock -o source=/var/lib/fs/vm001",
        {"shared_dir": "/var/lib/fs/vm001", "socket_path": "/var/run/vm001-vhost-fs.sock"},
        [],
    ),
    # libvirt's qemuVirtioFSBuildCommandLine, up to 9.x and later, with all it can say.
    "libvirt-compat": (
        (
            "--fd=33 -o source=/path,cache=always,xattr,sandbox=chroot,flock,posix_lock"
            " --thread-pool-size=16"
        ),
        {
            "fd": 33,
            "shared_dir": "/path",
            "caching": ALWAYS,
            "xattrs": True,
            "flock": True,
            "posix_lock": True,
        },
        ["--sandbox=chroot", "--thread-pool-size"],
    ),
    "libvirt-compat-plain": (
        "--fd=33 -o source=/path,no_flock,no_posix_lock,no_xattr -d",
        {
            "fd": 33,
            "shared_dir": "/path",
            "log_level": logging.DEBUG,
            "flock": False,
            "posix_lock": False,
        },
        [],
    ),
    "libvirt-separate": (
        (
            "--fd=33 --shared-dir /path --cache always --sandbox chroot --thread-pool-size 16"
            " --readonly --translate-uid map:1000:0:65536"
        ),
        {},
        ["--translate-uid is not supported"],
    ),
    "libvirt-readonly": (
        "--fd=33 --shared-dir /path --readonly --syslog --xattr --rlimit-nofile 2048",
        {"readonly": True, "syslog": True, "xattrs": True, "rlimit_nofile": 2048},
        [],
    ),
    # Kata Containers: virtiofsd.go, and the defaults of virtio_fs_extra_args.
    "kata": (
        "--syslog --cache=never --shared-dir=/run/kata-shared/foo --fd=123",
        {
            "syslog": True,
            "caching": NEVER,
            "shared_dir": "/run/kata-shared/foo",
            "fd": 123,
            "readdirplus": False,
        },
        [],
    ),
    "kata-migration": (
        (
            "--syslog --cache=never --shared-dir=/run/kata-shared/foo --fd=456"
            " --migration-mode=find-paths --migration-on-error=guest-error"
        ),
        {"fd": 456},
        ["--migration-mode", "--migration-on-error"],
    ),
    "kata-extra": (
        "--syslog --cache=auto --shared-dir=/d --fd=3 --thread-pool-size=1 --announce-submounts",
        {"caching": AUTO, "fd": 3},
        ["--announce-submounts"],
    ),
    # KubeVirt's container.
    "kubevirt": (
        (
            "--socket-path=/s --shared-dir=/d --sandbox=none --cache=auto"
            " --migration-on-error=guest-error --migration-mode=find-paths"
        ),
        {"is_confined": False},
        ["--migration-on-error", "--migration-mode"],
    ),
    "everything-that-does-nothing": (
        (
            "--socket-path /s --shared-dir /d --announce-submounts --seccomp kill"
            " --inode-file-handles=never --modcaps=+sys_admin:-chown --writeback --allow-direct-io"
            " --security-label=auto --thread-pool-size 8"
        ),
        {"xattrs": True},
        [
            "--announce-submounts",
            "--seccomp",
            "--inode-file-handles",
            "--modcaps",
            "--writeback",
            "--allow-direct-io",
            "--security-label",
            "--thread-pool-size",
        ],
    ),
    "access-control-lists": (
        "--socket-path /s --shared-dir /d --posix-acl",
        {"xattrs": True, "posix_acl": True},
        [],
    ),
    "no-access-control-lists": (
        "--socket-path /s --shared-dir /d --xattr -o no_posix_acl",
        {"xattrs": True},
        [],
    ),
    "nothing-to-say": (
        (
            "--socket-path /s --shared-dir /d --seccomp=none --inode-file-handles=prefer"
            " --thread-pool-size=0 --posix-acl=never --no-announce-submounts --allow-mmap"
            " --preserve-noatime --killpriv-v2 --cache=metadata -f --tag=fs --log-level=off"
        ),
        {"caching": METADATA, "tag": "fs", "log_level": logging.CRITICAL + 1},
        [],
    ),
    "c-virtiofsd": (
        "-f --socket-path=S -o source=DIR -o sandbox=chroot -o cache=none",
        {"caching": NEVER, "readdirplus": False},
        ["--sandbox=chroot"],
    ),
    "c-virtiofsd-more": (
        (
            "--socket-path=S -o source=D,timeout=2.5,log_level=err,no_readdirplus,norace,"
            "max_idle_threads=4,allow_root,no_killpriv_v2,no_writeback,no_allow_direct_io,modcaps=-x"
        ),
        {"caching": Caching(2, 2), "log_level": logging.ERROR, "readdirplus": False},
        ["--norace", "--max-idle-threads", "--allow-root", "--no-killpriv-v2", "--modcaps"],
    ),
    "later-counts-more": (
        "--socket-path=a --socket-path=b --shared-dir=a -o source=b,cache=always -o cache=none",
        {"socket_path": "b", "shared_dir": "b", "caching": NEVER},
        [],
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_command_lines(name: str) -> None:
    line, expected, notes = LINES[name]
    if not expected:
        with pytest.raises(BadOption, match=notes[0]):
            parse(line)
        return
    options = parse(line)
    assert {key: getattr(options, key) for key in expected} == expected
    assert sorted(note.split()[0] for note in options.notes) == sorted(notes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "--shared-dir=DIR"),
        ("--shared-dir=/d", "the socket is missing"),
        ("--socket-path=/s", "--shared-dir=DIR"),
        ("--socket-path=/s --fd=3 --shared-dir=/d", "cannot both"),
        ("--fd=3 --socket-group=kvm --shared-dir=/d", "only be given with --socket-path"),
        ("--fd=three --shared-dir=/d", "--fd=three: not a number"),
        ("--fd=-1 --shared-dir=/d", "--fd=-1: not a number"),
        ("--fd=99999999999999999999 --shared-dir=/d", "not a number"),
        ("--fd=3 --shared-dir=/d -o timeout=soon", "timeout=soon"),
        ("--fd=3 --shared-dir=/d -o timeout=nan", "timeout=nan"),
        ("--fd=3 --shared-dir=/d -o timeout=-1", "timeout=-1"),
        ("--fd=3 -o source=/d,cache=sometimes", "cache=sometimes: not one of never"),
        ("--fd=3 -o source=/d,cache", "-o cache: it needs a value"),
        ("--fd=3 -o source=/d,xattr=yes", "-o xattr=yes: it takes no value"),
        ("--fd=3 -o source=/d,no_xattr=yes", "-o no_xattr=yes: it takes no value"),
        ("--fd=3 -o source=/d,no_source", "no such option: -o no_source"),
        ("--fd=3 -o source=/d,fd=4", "no such option: -o fd"),
        ("--fd=3 -o source=/d,xattrmap=:map::user.virtiofs.:", "--xattrmap is not supported"),
        ("--fd=3 --shared-dir=/d --uid-map=:0:100000:65536:", "--uid-map is not supported"),
        (f"--fd=3 --shared-dir=/d --tag={'x' * 37}", "1 to 36 bytes"),
    ],
)
def test_what_is_wrong(line: str, words: str) -> None:
    with pytest.raises(BadOption) as refused:
        parse(line)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("line", ["--frobnicate", "--cache=sometimes", "--sandbox=", "--fd", "x"])
def test_what_click_refuses(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


@pytest.mark.parametrize(
    ("line", "dialects"),
    [
        ("", {Dialect.CURRENT, Dialect.POSTED, Dialect.AGGREGATED}),
        ("--fsnotify=none", set()),
        ("--fsnotify=current", {Dialect.CURRENT}),
        ("--fsnotify=posted", {Dialect.CURRENT, Dialect.POSTED, Dialect.AGGREGATED}),
        ("--fsnotify=parented", set(Dialect)),
    ],
)
def test_whose_watches_are_placed_on_the_server(line: str, dialects: set[Dialect]) -> None:
    assert parse(f"--shared-dir=/d --fd=3 {line}").fsnotify == dialects


def test_notifications_are_offered_only_when_asked_for() -> None:
    assert not parse("--shared-dir=/d --fd=3").notifications
    assert parse("--shared-dir=/d --fd=3 --notifications").notifications


def test_every_option_of_the_table_can_be_given() -> None:
    """And what does nothing says so, what cannot be is refused."""
    for spec in SPECS:
        value = (spec.choices[-1] if spec.choices else "1") if spec.takes else None
        line = spec.flags[-1] if value is None else f"{spec.flags[-1]}={value}"
        base = "" if spec.name == "fd" else " --fd=3"
        if spec.name in ("socket_path", "socket_group"):
            base = " --socket-path=/s"
        if spec.effect is Effect.CANNOT:
            with pytest.raises(BadOption, match="not supported"):
                parse(f"{line} --shared-dir=/d{base}")
            continue
        notes = parse(f"--shared-dir=/d{base} {line}").notes
        talks = spec.effect is Effect.NOTHING and value not in spec.harmless
        talks |= line in ("--cache=coherent", "--sandbox=chroot")
        assert len(notes) == talks, (line, notes)


def test_names_of_the_table_are_unique() -> None:
    flags = [flag for spec in SPECS for flag in spec.flags]
    assert len(flags) == len(set(flags))
    assert len(BY_COMPAT) == len([spec for spec in SPECS if spec.compat])


def test_compat_parts_may_be_empty() -> None:
    assert read_compat(["", ",source=/d,,"]) == {"shared_dir": "/d"}
