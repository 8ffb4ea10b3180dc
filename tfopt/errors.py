"""What tfopt raises where it can't do what was asked, and how its sentences name what is near."""

import difflib
import fnmatch
import typing


class ConfigError(Exception):
    """What the user asked for can't be done; the message is one sentence that says what to do."""


class RunError(Exception):
    """The run can't keep what was asked of it; the message says what and what to do."""


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """Return `did you mean ...?` with the name that is closest to `name`, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(names) or 'none'}."


def matches(name: str, patterns: typing.Iterable[str]) -> bool:
    """Return whether `name` is one of `patterns`, such as "conv_*", on every system alike."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(at: str, patterns: typing.Iterable[str], names: list[str]) -> None:
    """Raise ConfigError, naming the place `at`, for a pattern that none of the layers has."""
    for pattern in patterns:
        if not any(matches(name, (pattern,)) for name in names):
            raise ConfigError(
                f"{at}: expected names or patterns of layers, received {pattern!r}; "
                f"{nearest(pattern, names)}"
            )
