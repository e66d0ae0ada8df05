"""What a guest needs and this machine lacks."""

from __future__ import annotations


class NoGuest(Exception):
    """A guest cannot be had here; the message says what is missing and how to get it."""
