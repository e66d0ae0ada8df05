"""The options behind ``-o``: ``-o source=DIR,cache=auto,no_xattr``."""

from __future__ import annotations

from collections.abc import Iterable

from farwatch.virtiofsd.errors import BadOption
from farwatch.virtiofsd.table import BY_COMPAT, BY_NAME, Spec

Values = dict[str, str | bool]
"""Options by their names: a value, or True for a switch."""

_OPPOSITES = {
    "readdirplus": ("no_readdirplus", False),
    "no_readdirplus": ("no_readdirplus", True),
    "no_killpriv_v2": ("no_killpriv_v2", True),
    "loglevel": ("log_level", None),
}
"""What is named otherwise than the option of its own."""
_SWITCHED_OFF = {
    f"no_{name}": name
    for name in (
        "xattr",
        "writeback",
        "allow_direct_io",
        "flock",
        "posix_lock",
        "posix_acl",
        "security_label",
    )
}


def read_compat(lines: Iterable[str]) -> Values:
    """All that stands behind ``-o``; a later one takes the place of an earlier.

    Raises BadOption.
    """
    values: Values = {}
    for line in lines:
        for part in line.split(","):
            if part:
                _read(part, values)
    return values


def _read(part: str, values: Values) -> None:
    name, has_value, value = part.partition("=")
    if name in _OPPOSITES:
        name, switch = _OPPOSITES[name]
        spec = BY_NAME[name]
        if switch is not None:
            if has_value:
                raise BadOption(f"-o {part}: it takes no value")
            values[name] = switch
            return
    else:
        found = BY_COMPAT.get(_SWITCHED_OFF.get(name, name))
        if found is None:
            raise BadOption(f"no such option: -o {name}")
        spec = found
        if name in _SWITCHED_OFF:
            if has_value:
                raise BadOption(f"-o {part}: it takes no value")
            values[spec.name] = "never" if spec.bare else False
            return
    values[spec.name] = _value(spec, part, has_value, value)


def _value(spec: Spec, part: str, has_value: str, value: str) -> str | bool:
    if not spec.takes:
        if has_value:
            raise BadOption(f"-o {part}: it takes no value")
        return True
    if not has_value:
        if spec.bare:
            return spec.bare
        raise BadOption(f"-o {part}: it needs a value")
    if spec.choices and value not in spec.choices:
        raise BadOption(f"-o {part}: not one of {', '.join(spec.choices)}")
    return value
