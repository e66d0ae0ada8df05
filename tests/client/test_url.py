from __future__ import annotations

import pytest

from farwatch.client.errors import Misuse
from farwatch.client.url import Tcp, Unix, Url, VhostUser, Vsock, parse


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("unix:/run/s", Unix("/run/s")),
        ("unix:///run/s", Unix("/run/s")),
        ("unix:relative", Unix("relative")),
        ("tcp://localhost:7000", Tcp("localhost", 7000, tls=False)),
        ("tcp:localhost:7000", Tcp("localhost", 7000, tls=False)),
        ("tcps://host.example:1/", Tcp("host.example", 1, tls=True)),
        ("tcps://[::1]:7000", Tcp("::1", 7000, tls=True)),
        ("vsock://2:7000", Vsock(2, 7000)),
        ("vhost-user:/run/s", VhostUser("/run/s")),
    ],
)
def test_right(text: str, right: Url) -> None:
    assert parse(text) == right


@pytest.mark.parametrize(
    "text",
    [
        "", "/run/s", "unix:", "unix:" + "x" * 108, "unix:a\0b", "http://host:1", "tcp://host",
        "tcp://:1", "tcp://host:65536", "tcp://host:-1", "tcp://host:x", "tcp://::1:7000",
        "tcp://user@host:1", "tcp://host/path:1", "vsock://x:1", "vsock://2:4294967296",
        "vsock://4294967296:1", "vhost-user:",
    ],
)  # fmt: skip
def test_wrong(text: str) -> None:
    with pytest.raises(Misuse):
        parse(text)
