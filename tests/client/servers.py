"""Real servers for the client: ``farwatch serve`` and ``farwatch virtiofsd``, as processes."""

from __future__ import annotations

import os
import re
import select
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

KINDS = ("unix", "tcp", "tcps", "vhost-user", "vhost-user-notifications")
TOKEN = "open-sesame-and-more"
_SECONDS = 30.0


class Served:
    """One server of a directory; a context that ends it."""

    def __init__(self, kind: str, directory: Path, below: Path) -> None:
        """``below``: where its socket, certificate and log are."""
        self.kind = kind
        self.directory = directory
        self._below = below
        self._socket = below / "socket"
        self._log = below / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._port = 0
        """Of TCP: the one that the first start was given."""

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs besides the URL."""
        if self.kind != "tcps":
            return {}
        context = ssl.create_default_context(cafile=str(self._below / "cert.pem"))
        return {"token": TOKEN, "tls": context}

    def start(self) -> None:
        """Starts it, and waits until it can be connected to."""
        self._socket.unlink(missing_ok=True)
        self._log.write_bytes(b"")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "farwatch", *self._arguments()], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            select.select([], [], [], 0.02)

    def _arguments(self) -> list[str]:
        directory, socket = str(self.directory), str(self._socket)
        match self.kind:
            case "unix":
                return ["serve", directory, "--listen", f"unix:{socket}"]
            case "tcp":
                listen = f"tcp:127.0.0.1:{self._port}"
                return ["serve", directory, "--listen", listen, "--user", "root"]
            case "tcps":
                self._certificate()
                (self._below / "token").write_text(TOKEN + "\n")
                (self._below / "token").chmod(0o600)
                files = {"--tls-cert": "cert.pem", "--tls-key": "key.pem", "--token-file": "token"}
                paths = [
                    part for name, file in files.items() for part in (name, str(self._below / file))
                ]
                listen = f"tcp:127.0.0.1:{self._port}"
                return ["serve", directory, "--listen", listen, "--user", "root", *paths]
        notifications = ["--notifications"] if self.kind.endswith("notifications") else []
        return [
            "virtiofsd", "--shared-dir", directory, "--socket-path", socket, *notifications,
        ]  # fmt: skip

    def _certificate(self) -> None:
        if not (self._below / "cert.pem").exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test",
                 "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem",
                 "-out", "cert.pem"],
                cwd=self._below, check=True, capture_output=True,
            )  # fmt: skip
            (self._below / "key.pem").chmod(0o600)

    def _is_ready(self) -> bool:
        if self.kind in ("tcp", "tcps"):
            found = re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", self._log.read_text())
            if found is None:
                return False
            self._port = int(found[1])
            self.url = f"{self.kind}://127.0.0.1:{self._port}"
        else:
            kind = "unix" if self.kind == "unix" else "vhost-user"
            self.url = f"{kind}:{self._socket}"
        if self.kind.startswith("vhost-user"):
            # Written when it listens.
            lock = Path(f"{self._socket}.pid")
            return lock.exists() and bool(lock.read_text())
        return "ready" in self._log.read_text()

    def stop(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def write(path: Path, content: bytes) -> None:
    """A file with this content, as somebody on the host makes one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, content)
    os.close(fd)
