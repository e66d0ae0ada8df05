"""TLS for a server, from a certificate and its key."""

from __future__ import annotations

import ssl


class NoTls(Exception):
    """TLS cannot be had from these files: what, and which file."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """What connections are wrapped in: TLS 1.2 or later.  Raises NoTls."""
    for path in (certificate, key):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise NoTls(f"cannot be read: {error.strerror}", path) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        what = reason.replace("_", " ").lower()
        raise NoTls(f"no certificate and key for TLS: {what}", certificate) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; it must not be")
