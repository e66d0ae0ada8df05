"""Every option of virtiofsd, and what it does here.

Two programs of that name are in use: the one in Rust (1.13) and the one in C that came with
QEMU until 7.2.  The first has an option each, the second puts most of them behind ``-o``;
both take the other's as well, and so it is here.  An option that is not in this table is
an error.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Effect(Enum):
    """What an option does here."""

    WHAT_IT_SAYS = 1
    NOTHING = 2
    """Taken, and said once in the log with the reason."""
    CANNOT = 3
    """Refused: whoever gives it relies on it."""


class Spec(NamedTuple):
    """One option.

    ``flags``    by which it is given, with dashes; the last long one names it
    ``about``    for ``--help``; of one that does nothing or cannot be, the reason
    ``takes``    what its value is, or nothing for a switch
    ``choices``  its values, if there are few
    ``bare``     its value if it stands without one
    ``compat``   it may also be given as ``-o name[=value]``; a switch also as ``no_name``
    ``harmless`` values of one that does nothing which need not be talked about
    """

    flags: tuple[str, ...]
    about: str
    effect: Effect = Effect.WHAT_IT_SAYS
    takes: str = ""
    choices: tuple[str, ...] = ()
    bare: str = ""
    compat: str = ""
    harmless: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key of its value: ``--shared-dir`` is ``shared_dir``."""
        return self.flags[-1].lstrip("-").replace("-", "_")


_NOTHING, _CANNOT = Effect.NOTHING, Effect.CANNOT
_MODES = ("never", "auto", "always")
_NOT_MIGRATED = "the daemon's state is not migrated"

SPECS = (
    # What is shared, and by which socket.
    Spec(("--shared-dir",), "The directory to share.", takes="DIR", compat="source"),
    Spec(("--socket", "--socket-path"), "Listen on this socket.", takes="PATH"),
    Spec(("--socket-group",), "The socket's group; its mode is then 0770.", takes="GROUP"),
    Spec(("--fd",), "Listen on this inherited socket.", takes="N"),
    Spec(("--keep",), "Serve the next front end when one disconnects (farwatch's own)."),
    Spec(
        ("--tag",),
        "Offer this tag in the configuration space (QEMU has its own, and does not ask).",
        takes="TAG",
    ),
    # How it is shared.
    Spec(
        ("--cache",),
        "never (or none): nothing is cached; auto: names and attributes for a second, and"
        " pages; always (or coherent): names and directories for a day while an agent"
        " delivers changes in the guest, else as auto; metadata: as always, but no pages.",
        takes="MODE",
        choices=("never", "none", "auto", "always", "metadata", "coherent"),
        compat="cache",
    ),
    Spec(
        ("--timeout",),
        "Seconds for which names and attributes are cached, instead of --cache's.",
        takes="SECONDS",
        compat="timeout",
    ),
    Spec(("--readonly",), "The guest can change nothing."),
    Spec(
        ("--flock",),
        "Locks of flock(2) are one with the host's. Without it they are the guest's own.",
        compat="flock",
    ),
    Spec(
        ("--posix-lock",),
        "Locks of fcntl(2) are one with the host's. Without it they are the guest's own. Who"
        " waits for one that another holds cannot be killed meanwhile: nothing in a guest"
        " interrupts a request.",
        compat="posix_lock",
    ),
    Spec(("--xattr",), "Pass extended attributes.", compat="xattr"),
    Spec(
        ("--no-readdirplus",),
        "List directories without attributes.",
    ),
    # Clients that keep their own watches (farwatch's own).
    Spec(
        ("--fsnotify",),
        "Whose watches are placed on the server: none; current, of clients that ask for"
        " farwatch's protocol; posted, also in the two layouts of 2021; parented, also in that"
        " of 2022, which other kernels ask for by mistake. All others have an agent"
        " (farwatch's own).",
        takes="PROTOCOL",
        choices=("none", "current", "posted", "parented"),
    ),
    Spec(
        ("--notifications",),
        "Offer the guest a queue for notifications, VIRTIO_FS_F_NOTIFICATION (farwatch's own).",
    ),
    # The process.
    Spec(
        ("--sandbox",),
        "namespace: a mount namespace with nothing but the shared directory; chroot: the same;"
        " none: no namespace.",
        takes="MODE",
        choices=("namespace", "chroot", "none"),
        compat="sandbox",
    ),
    Spec(
        ("--rlimit-nofile",),
        "The largest number of open files; 0 leaves it as it is.",
        takes="N",
    ),
    Spec(("--syslog",), "Log to syslog instead of standard error."),
    Spec(
        ("--log-level",),
        "What is logged.",
        takes="LEVEL",
        choices=("off", "error", "err", "warn", "info", "debug", "trace"),
        compat="log_level",
    ),
    Spec(("-d", "--debug"), "As --log-level=debug.", compat="debug"),
    Spec(("-f", "--foreground"), "Stay in the foreground: so it does anyway."),
    Spec(
        ("--daemonize",),
        "Go to the background once the socket listens; what is logged then goes to syslog only.",
    ),
    Spec(("--print-capabilities",), "Print what libvirt asks for, as JSON, and exit."),
    # What does nothing here.
    Spec(
        ("--thread-pool-size",),
        "one thread serves the guest's requests",
        _NOTHING,
        takes="N",
        harmless=("0", "1"),
    ),
    Spec(
        ("--seccomp",),
        "system calls are not filtered",
        _NOTHING,
        takes="ACTION",
        choices=("none", "kill", "log", "trap"),
        harmless=("none",),
    ),
    Spec(
        ("--modcaps",), "the daemon keeps root's capabilities", _NOTHING, "CAPS", compat="modcaps"
    ),
    Spec(
        ("--inode-file-handles",),
        "files are always known by their handles",
        _NOTHING,
        takes="MODE",
        choices=("never", "fallback", "prefer", "mandatory"),
        harmless=("prefer", "fallback", "mandatory"),
    ),
    Spec(
        ("--announce-submounts",),
        "what is mounted below the shared directory is not shared",
        _NOTHING,
        compat="announce_submounts",
    ),
    Spec(("--no-announce-submounts",), "submounts are never announced"),
    Spec(
        ("--posix-acl",),
        "the guest goes by access control lists, where there are any; turns on --xattr",
        takes="MODE",
        choices=_MODES,
        bare="always",
        compat="posix_acl",
    ),
    Spec(
        ("--security-label",),
        "new files get the host's labels (it does turn on --xattr)",
        _NOTHING,
        takes="MODE",
        choices=_MODES,
        bare="always",
        compat="security_label",
        harmless=("never",),
    ),
    Spec(
        ("--posix-acl-create-fallback",),
        "files are made with the caller's ids, whatever the directory's lists say",
        _NOTHING,
    ),
    Spec(
        ("--writeback",),
        "it would hide sizes and times that are made on the host",
        _NOTHING,
        compat="writeback",
    ),
    Spec(
        ("--allow-direct-io",),
        "O_DIRECT of the guest ends in the host's page cache",
        _NOTHING,
        compat="allow_direct_io",
    ),
    Spec(("--allow-mmap",), "files can always be mapped"),
    Spec(
        ("--killpriv-v2",),
        "Have the host take set-id bits away at a write: as ever where the guest can.",
        compat="killpriv_v2",
    ),
    Spec(("--no-killpriv-v2",), "set-id bits are always taken away by the host", _NOTHING),
    Spec(("--norace",), "there is no fallback that could race", _NOTHING, compat="norace"),
    Spec(("--allow-root",), "root of the guest always has access", _NOTHING, compat="allow_root"),
    Spec(
        ("--max-idle-threads",),
        "one thread serves the guest's requests",
        _NOTHING,
        takes="N",
        compat="max_idle_threads",
    ),
    Spec(("--preserve-noatime",), "O_NOATIME is kept as it is, as root may"),
    Spec(
        ("--migration-mode",),
        _NOT_MIGRATED,
        _NOTHING,
        takes="MODE",
        choices=("find-paths", "file-handles"),
    ),
    Spec(
        ("--migration-on-error",),
        _NOT_MIGRATED,
        _NOTHING,
        takes="ACTION",
        choices=("abort", "guest-error"),
    ),
    Spec(("--migration-verify-handles",), _NOT_MIGRATED, _NOTHING),
    Spec(("--migration-confirm-paths",), _NOT_MIGRATED, _NOTHING),
    # What cannot be.
    Spec(
        ("--xattrmap",),
        "names of extended attributes are not translated",
        _CANNOT,
        takes="RULES",
        compat="xattrmap",
    ),
    Spec(("--translate-uid",), "user ids are not translated", _CANNOT, takes="MAP"),
    Spec(("--translate-gid",), "group ids are not translated", _CANNOT, takes="MAP"),
    Spec(("--uid-map",), "the daemon runs in no user namespace", _CANNOT, takes="MAP"),
    Spec(("--gid-map",), "the daemon runs in no user namespace", _CANNOT, takes="MAP"),
)
BY_NAME = {spec.name: spec for spec in SPECS}
BY_COMPAT = {spec.compat: spec for spec in SPECS if spec.compat}
