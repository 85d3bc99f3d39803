"""The one exception that a user is meant to see."""

from __future__ import annotations


class EdgeAdError(Exception):
    """A fault that the user can mend, told in one line.

    Parameters
    ----------
    found : str
        What was found, with the name of the file, field or value.
    expected : str, optional
        What was expected instead.
    remedy : str, optional
        What to do, if possible as a command.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        super().__init__("; ".join(parts))


class InvalidFrame(EdgeAdError):
    """A frame that cannot be inspected. A run reports it as ``decision: invalid`` and goes on."""


def one_line(text: object) -> str:
    """Text with every run of white space as one blank: an error is one line."""
    return " ".join(str(text).split())


def missing_package(package: str, extra: str) -> EdgeAdError:
    """Error for an optional package that is not installed; names the extra that brings it."""
    return EdgeAdError(
        f"the package '{package}' is not installed",
        f"the extra '{extra}', which brings it",
        f"run: pip install 'edge-ad[{extra}]'",
    )
