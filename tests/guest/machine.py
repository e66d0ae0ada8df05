"""A virtual machine: QEMU without KVM, Debian's kernel, and programs that run in it.

    with Machine(image, [Share("shared", daemon)]) as machine:
        machine.mount("shared", "/mnt")
        machine.run(["ls", "/mnt"]).stdout

One virtual processor: Debian's kernel now and then panics with two under multi-threaded
emulation.  A boot that never reports is tried once more, with daemons started anew, for
QEMU contacts a daemon only once.  Nothing stays behind: QEMU is killed with its creator.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.guest.absent import NoGuest
from tests.guest.initramfs import Image
from tests.guest.inside.wire import PORT
from tests.guest.programs import PROGRAM_SECONDS, Commands, Completed, GuestSilent, Program
from tests.guest.qmp import Monitor
from tests.guest.virtiofsd import C_VIRTIOFSD, Daemon

QEMU = "qemu-system-x86_64"
BOOT_SECONDS = 40.0
"""Most boots take 3 s; on a busy machine 10."""
BOOTS = 2
END_SECONDS = 20.0
APPEND = (
    "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check"
    " random.trust_cpu=on mitigations=off"
)
"""Kernel parameters.  Without tsc=reliable and no_timer_check an emulated processor fails the
kernel's tests of its clocks now and then."""
CONSOLE_SHOWN = 4000
DAEMON_SHOWN = 20000


def require_programs() -> None:
    """Raises NoGuest if this machine lacks one of the programs that a guest needs."""
    for name in (QEMU, "setpriv", C_VIRTIOFSD):
        if shutil.which(name) is None:
            raise NoGuest(f"{name} is not here; `make system-packages` installs it")


class Share(NamedTuple):
    """A virtiofs device: the name that the guest mounts it by, and its daemon.

    The machine starts and stops the daemon; closing it is its maker's.
    """

    tag: str
    daemon: Daemon


class Machine:
    """A guest.  It runs from entering the context to leaving it."""

    def __init__(self, image: Image, shares: Sequence[Share] = (), *, memory: str = "512M") -> None:
        self._image = image
        self._shares = shares
        self._memory = memory
        self.home = Path(tempfile.mkdtemp(prefix="farwatch-test-", dir="/tmp"))
        self._console = self.home / "console"
        self._said = self.home / "qemu"
        self._parts = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.shell: socket.socket | None = None
        """The guest's second serial line, /dev/ttyS1."""

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.log())
        self.close()

    # Programs.

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
    ) -> Program:
        """Start a program in the guest.  Raises GuestSilent."""
        return self._commands.start(argv, environment, directory)

    def run(
        self,
        argv: Sequence[str],
        given: bytes = b"",
        *,
        directory: str = "/",
        seconds: float = PROGRAM_SECONDS,
    ) -> Completed:
        """Run a program in the guest to its end.  Raises GuestSilent."""
        with self.start(argv, directory=directory) as program:
            if given:
                program.write(given)
            program.end_input()
            return program.wait(seconds)

    def check(self, argv: Sequence[str], given: bytes = b"", *, directory: str = "/") -> str:
        """Run a program and return its output.  Raises AssertionError if its status is not 0."""
        done = self.run(argv, given, directory=directory)
        if done.status != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"in the guest: {' '.join(argv)}: status {done.status}: {said}")
        return done.stdout.decode(errors="surrogateescape")

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Make a file in the guest."""
        self.check(["sh", "-c", 'cat >"$0" && chmod "$1" "$0"', path, f"{mode:o}"], data)

    def mount(self, tag: str, path: str) -> None:
        """Mount the share ``tag`` in the guest."""
        self.check(["mkdir", "-p", path])
        self.check(["mount", "-t", "virtiofs", tag, path])

    # The machine.

    @property
    def pid(self) -> int:
        """QEMU's process."""
        assert self._process
        return self._process.pid

    def is_running(self) -> bool:
        """Whether QEMU is."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the guest's processor, and its devices with it."""
        self._monitor.ask("stop")

    def cont(self) -> None:
        """Let it go on."""
        self._monitor.ask("cont")

    def reset(self) -> None:
        """As the reset button does; returns when the guest is up again.  Raises GuestSilent."""
        self._monitor.ask("set-action", reboot="reset")
        self._commands.expect_start()
        self._monitor.ask("system_reset")
        self._await_start()
        self._monitor.ask("set-action", reboot="shutdown")

    def reboot(self) -> None:
        """From inside; returns when the guest is up again.  Raises GuestSilent."""
        self._monitor.ask("set-action", reboot="reset")
        self.start(["reboot", "-f"])
        self._commands.expect_start()
        self._await_start()
        self._monitor.ask("set-action", reboot="shutdown")

    def power_off(self) -> None:
        """From inside: unmount everything, end; returns when QEMU has ended."""
        assert self._process
        script = "cd /; sync; umount -a -t virtiofs; reboot -f"
        with contextlib.suppress(GuestSilent):
            self.run(["sh", "-c", script], seconds=END_SECONDS)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise GuestSilent("the guest does not power off") from None

    def kill(self) -> None:
        """SIGKILL to QEMU."""
        if self._process:
            self._process.kill()
            self._process.wait(END_SECONDS)

    def log(self) -> str:
        """The guest's console, QEMU's messages, and the daemons'."""
        parts = [("console", self._console), ("QEMU", self._said)]
        texts = [
            f"--- {name}\n{path.read_text(errors='replace')[-CONSOLE_SHOWN:]}"
            for name, path in parts
            if path.exists()
        ]
        texts += [f"--- {tag}\n{daemon.log()[-DAEMON_SHOWN:]}" for tag, daemon in self._shares]
        return "\n".join(texts)

    def close(self) -> None:
        """End the guest and remove what was its own."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.home, ignore_errors=True)
            stack.callback(self._parts.close)

    # Its start.

    def _boot(self) -> None:
        for _ in range(BOOTS):
            for _, daemon in self._shares:
                self._parts.callback(daemon.stop)
                daemon.start()
            self._spawn()
            if self._commands.wait_until_ready(BOOT_SECONDS):
                self._monitor.negotiate()
                return
            self._parts.close()
        raise GuestSilent(f"the guest does not start\n{self.log()}")

    def _await_start(self) -> None:
        if not self._commands.wait_until_ready(BOOT_SECONDS):
            raise GuestSilent("the guest does not start again")

    def _spawn(self) -> None:
        with contextlib.ExitStack() as theirs:
            ends = {}
            for name in ("commands", "monitor", "shell"):
                ours, its = socket.socketpair()
                ends[name] = ours, theirs.enter_context(its)
                self._parts.callback(ours.close)
            descriptors = {name: its.fileno() for name, (_, its) in ends.items()}
            with self._said.open("ab") as said:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *self._command(descriptors)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    pass_fds=list(descriptors.values()),
                    cwd="/",
                )
        self._parts.callback(self.kill)
        self._commands = Commands(ends["commands"][0])
        self._parts.callback(self._commands.close)
        self._monitor = Monitor(ends["monitor"][0])
        self._parts.callback(self._monitor.close)
        self.shell = ends["shell"][0]

    def _command(self, descriptors: Mapping[str, int]) -> list[str]:
        memory = f"memory-backend-memfd,id=mem,size={self._memory},share=on"
        words = [
            *(QEMU, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"),
            *("-m", self._memory, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-object", memory, "-machine", "memory-backend=mem"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs)),
            *("-append", APPEND),
            *("-chardev", f"file,id=console,path={self._console}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci", "-device"),
            f"virtserialport,chardev=commands,name={PORT}",
            *("-mon", "chardev=monitor,mode=control", "-serial", "chardev:shell"),
        ]
        for name, fd in descriptors.items():
            words += ["-chardev", f"socket,id={name},fd={fd}"]
        for number, (tag, daemon) in enumerate(self._shares):
            words += ["-chardev", f"socket,id=fs{number},path={daemon.socket}", "-device"]
            words += [f"vhost-user-fs-pci,chardev=fs{number},tag={tag},queue-size=1024"]
        return words
