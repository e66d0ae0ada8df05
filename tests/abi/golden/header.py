"""What abi/fuse.py claims of linux/fuse.h, and the C program that asks the header itself.

    python -m tests.abi.golden.header [INCLUDE_DIRECTORY] > tests/abi/golden/fuse-7.NN.txt

makes a capture of a header: ``sizeof``, ``offset`` (offset and size) and ``value`` lines
that the compiler has worked out.  Nothing in it comes from farwatch's own layouts but the
names that are asked for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple

from farwatch.abi import fuse


class Layout(NamedTuple):
    """A C struct and the fields that a declaration of abi/fuse.py stands for.

    ``rest`` is what the declaration leaves to another one: the struct's last field.
    """

    struct: str
    fields: str
    rest: str = ""


LAYOUTS = {
    "IN_HEADER": Layout(
        "fuse_in_header", "len opcode unique nodeid uid gid pid total_extlen padding"
    ),
    "OUT_HEADER": Layout("fuse_out_header", "len error unique"),
    "INIT_IN": Layout("fuse_init_in", "major minor max_readahead flags flags2"),
    "INIT_OUT": Layout(
        "fuse_init_out",
        "major minor max_readahead flags max_background congestion_threshold max_write"
        " time_gran max_pages map_alignment flags2 max_stack_depth",
    ),
    "ATTR": Layout(
        "fuse_attr",
        "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid"
        " rdev blksize flags",
    ),
    "ENTRY_OUT_HEAD": Layout(
        "fuse_entry_out",
        "nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec",
        rest="attr",
    ),
    "ATTR_OUT_HEAD": Layout("fuse_attr_out", "attr_valid attr_valid_nsec dummy", rest="attr"),
    "GETATTR_IN": Layout("fuse_getattr_in", "getattr_flags dummy fh"),
    "SETATTR_IN": Layout(
        "fuse_setattr_in",
        "valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode"
        " unused4 uid gid unused5",
    ),
    "MKNOD_IN": Layout("fuse_mknod_in", "mode rdev umask padding"),
    "MKDIR_IN": Layout("fuse_mkdir_in", "mode umask"),
    "RENAME_IN": Layout("fuse_rename_in", "newdir"),
    "RENAME2_IN": Layout("fuse_rename2_in", "newdir flags padding"),
    "LINK_IN": Layout("fuse_link_in", "oldnodeid"),
    "OPEN_IN": Layout("fuse_open_in", "flags open_flags"),
    "CREATE_IN": Layout("fuse_create_in", "flags mode umask open_flags"),
    "OPEN_OUT": Layout("fuse_open_out", "fh open_flags backing_id"),
    "RELEASE_IN": Layout("fuse_release_in", "fh flags release_flags lock_owner"),
    "FLUSH_IN": Layout("fuse_flush_in", "fh unused padding lock_owner"),
    "READ_IN": Layout("fuse_read_in", "fh offset size read_flags lock_owner flags padding"),
    "WRITE_IN": Layout("fuse_write_in", "fh offset size write_flags lock_owner flags padding"),
    "WRITE_OUT": Layout("fuse_write_out", "size padding"),
    "STATFS_OUT": Layout(
        "fuse_kstatfs", "blocks bfree bavail files ffree bsize namelen frsize padding"
    ),
    "FSYNC_IN": Layout("fuse_fsync_in", "fh fsync_flags padding"),
    "SETXATTR_IN": Layout("fuse_setxattr_in", "size flags setxattr_flags padding"),
    "STATX_IN": Layout("fuse_statx_in", "getattr_flags reserved fh sx_flags sx_mask"),
    "STATX_OUT_HEAD": Layout("fuse_statx_out", "attr_valid attr_valid_nsec flags", rest="stat"),
    "STATX": Layout(
        "fuse_statx",
        "mask blksize attributes nlink uid gid mode ino size blocks attributes_mask"
        " atime.tv_sec atime.tv_nsec btime.tv_sec btime.tv_nsec ctime.tv_sec ctime.tv_nsec"
        " mtime.tv_sec mtime.tv_nsec rdev_major rdev_minor dev_major dev_minor",
    ),
    "EXTENSION": Layout("fuse_ext_header", "size type"),
    "GETXATTR_IN": Layout("fuse_getxattr_in", "size padding"),
    "GETXATTR_OUT": Layout("fuse_getxattr_out", "size padding"),
    "ACCESS_IN": Layout("fuse_access_in", "mask padding"),
    "INTERRUPT_IN": Layout("fuse_interrupt_in", "unique"),
    "LK_IN": Layout("fuse_lk_in", "fh owner lk.start lk.end lk.type lk.pid lk_flags padding"),
    "LK_OUT": Layout("fuse_lk_out", "lk.start lk.end lk.type lk.pid"),
    "IOCTL_IN": Layout("fuse_ioctl_in", "fh flags cmd arg in_size out_size"),
    "IOCTL_OUT": Layout("fuse_ioctl_out", "result flags in_iovs out_iovs"),
    "FORGET_IN": Layout("fuse_forget_in", "nlookup"),
    "BATCH_FORGET_IN": Layout("fuse_batch_forget_in", "count dummy"),
    "FORGET_ONE": Layout("fuse_forget_one", "nodeid nlookup"),
    "FALLOCATE_IN": Layout("fuse_fallocate_in", "fh offset length mode padding"),
    "LSEEK_IN": Layout("fuse_lseek_in", "fh offset whence padding"),
    "LSEEK_OUT": Layout("fuse_lseek_out", "offset"),
    "COPY_FILE_RANGE_IN": Layout(
        "fuse_copy_file_range_in", "fh_in off_in nodeid_out fh_out off_out len flags"
    ),
    "DIRENT": Layout("fuse_dirent", "ino off namelen type", rest="name"),
    "NOTIFY_INVAL_INODE_OUT": Layout("fuse_notify_inval_inode_out", "ino off len"),
    "NOTIFY_INVAL_ENTRY_OUT": Layout("fuse_notify_inval_entry_out", "parent namelen flags"),
    "NOTIFY_PRUNE_OUT": Layout("fuse_notify_prune_out", "count padding spare"),
}
"""Every Struct of abi/fuse.py, but for those that a test has to itself."""

SINCE = {
    "FUSE_STATX": 39,
    "FUSE_EXT_GROUPS": 39,  # of 7.38, but not in every header that says so
    "fuse_ext_header": 38,
    "fuse_statx_in": 39,
    "fuse_statx_out": 39,
    "fuse_statx": 39,
    "FUSE_NOTIFY_RESEND": 40,
    "FUSE_NOTIFY_INC_EPOCH": 44,
    "FUSE_NOTIFY_PRUNE": 45,
    "FUSE_COPY_FILE_RANGE_64": 45,
    "fuse_open_out.backing_id": 40,
    "fuse_init_out.max_stack_depth": 40,
    "fuse_notify_prune_out": 45,
}
"""The minor version of the protocol in which an enumerator, struct or field appeared
(the changelog at the top of linux/fuse.h); no preprocessor can ask for these."""


def values() -> dict[str, int]:
    """C names of all numbers that abi/fuse.py declares, and what it says they are."""
    found = {
        "FUSE_KERNEL_VERSION": fuse.MAJOR,
        "FUSE_ROOT_ID": fuse.ROOT_ID,
        "FUSE_GETATTR_FH": fuse.GETATTR_FH,
        "FUSE_OPEN_KILL_SUIDGID": fuse.OPEN_KILL_SUIDGID,
        "FUSE_WRITE_CACHE": fuse.WRITE_CACHE,
        "FUSE_WRITE_KILL_SUIDGID": fuse.WRITE_KILL_SUIDGID,
        "FUSE_SETXATTR_ACL_KILL_SGID": fuse.SETXATTR_KILL_SGID,
        "FUSE_EXT_GROUPS": fuse.EXTENSION_GROUPS,
        "FUSE_FSYNC_FDATASYNC": fuse.FSYNC_FDATASYNC,
        "FUSE_IOCTL_DIR": fuse.IOCTL_DIR,
        "FUSE_LK_FLOCK": fuse.LK_FLOCK,
        "FUSE_EXPIRE_ONLY": fuse.EXPIRE_ONLY,
    }
    kinds: dict[type[IntEnum | IntFlag], str] = {
        fuse.Opcode: "FUSE_",
        fuse.Notify: "FUSE_NOTIFY_",
        fuse.Init: "FUSE_",
        fuse.Valid: "FATTR_",
        fuse.Open: "FOPEN_",
    }
    for kind, prefix in kinds.items():
        found.update({f"{prefix}{member.name}": int(member) for member in kind})
    return found


def _guarded(name: str, line: str) -> str:
    since = SINCE.get(name)
    if since is None:
        return line
    return f"#if FUSE_KERNEL_MINOR_VERSION >= {since}\n{line}\n#endif"


def program() -> str:
    """The C program that prints what a header says."""
    enumerators = {"FUSE_" + member.name for member in fuse.Opcode}
    enumerators |= {"FUSE_EXT_GROUPS"}
    enumerators |= {"FUSE_NOTIFY_" + member.name for member in fuse.Notify}
    lines = ['say("value FUSE_KERNEL_MINOR_VERSION %llu", FUSE_KERNEL_MINOR_VERSION);']
    for name in values():
        line = f'say("value {name} %llu", {name});'
        if name not in enumerators:
            line = f"#ifdef {name}\n{line}\n#endif"
        lines.append(_guarded(name, line))
    for struct, names, rest in LAYOUTS.values():
        asked = [f'say("sizeof {struct} %llu", sizeof(struct {struct}));']
        if rest:
            asked.append(f'say("rest {struct} %llu", offsetof(struct {struct}, {rest}));')
        for name in names.split():
            line = (
                f'printf("offset {struct} {name} %zu %zu\\n", offsetof(struct {struct}, {name}),'
                f" sizeof(((struct {struct} *)0)->{name}));"
            )
            asked.append(_guarded(f"{struct}.{name}", line))
        lines.append(_guarded(struct, "\n".join(asked)))
    body = "\n".join(lines)
    return (
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\n"
        "#define say(format, number) "
        'printf(format "\\n", (unsigned long long)(number))\n'
        "int main(void)\n{\n" + body + "\nreturn 0;\n}\n"
    )


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def ask(cc: str, include: str | None = None) -> str:
    """What a header says; the system's, or linux/fuse.h of another directory."""
    with tempfile.TemporaryDirectory() as directory:
        source, binary = Path(directory) / "ask.c", Path(directory) / "ask"
        source.write_text(program())
        options = ["-I", include] if include is not None else []
        subprocess.run([cc, "-Wall", "-Werror", *options, source, "-o", binary], check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    found = compiler()
    if found is None:
        sys.exit("no C compiler")
    sys.stdout.write(ask(found, *sys.argv[1:2]))
