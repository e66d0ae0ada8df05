"""What can be wrong with a command line."""

from __future__ import annotations


class BadOption(Exception):
    """An option that is wrong, or stands with another that it cannot stand with."""
