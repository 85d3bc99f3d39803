"""Camera URIs: ``SCHEME:PATH?KEY=VALUE&KEY=VALUE``, parsed strictly so that a mistyped option is told, not ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from edge_ad.errors import EdgeAdError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")


@dataclass(frozen=True)
class Uri:
    """A parsed URI. ``path`` and the option values are decoded (``%3F`` is ``?``)."""

    scheme: str
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The URI as text; :func:`parse_uri` gives the same URI back."""
        query = "&".join(f"{quote(k, safe='')}={quote(v, safe='/')}" for k, v in self.options.items())
        return f"{self.scheme}:{quote(self.path, safe='/:~')}" + (f"?{query}" if query else "")

    def only(self, *known: str) -> None:
        """Raise EdgeAdError when an option is none of ``known``."""
        for key in self.options:
            if key not in known:
                raise EdgeAdError(f"{self}: option '{key}'", f"one of: {', '.join(known)}")

    def text(self, key: str) -> str | None:
        """The option's value, or None when it is absent or empty."""
        return self.options.get(key) or None

    def integer(self, key: str, default: int, minimum: int = 0) -> int:
        """The option as an integer >= ``minimum``."""
        value = self.text(key)
        if value is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or int(value) < minimum:
            raise EdgeAdError(f"{self}: {key}={value}", f"a whole number >= {minimum}")
        return int(value)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """The option as a number in [``low``, ``high``]."""
        value = self.text(key)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise EdgeAdError(f"{self}: {key}={value}", f"a number from {low:g} to {high:g}")
        return number

    def switch(self, key: str) -> bool:
        """The option as yes or no (``1/0``, ``true/false``, ``yes/no``); no when it is absent."""
        value = (self.text(key) or "0").lower()
        if value not in ("0", "1", "true", "false", "yes", "no"):
            raise EdgeAdError(f"{self}: {key}={value}", "1 or 0")
        return value in ("1", "true", "yes")


def parse_uri(text: str, known: tuple[str, ...] = ()) -> Uri:
    """Split ``text`` into scheme, path and options.

    ``known`` are the schemes there are (named by the error). The path ends at the first ``?``; a ``?`` in a folder's
    name is written ``%3F`` and a ``%`` that two hexadecimal digits follow ``%25``.

    Raises EdgeAdError for text without a scheme, an unknown scheme, an option without ``=``, or one given twice.
    """
    schemes = ", ".join(f"{name}:" for name in known) or "SCHEME:PATH"
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.match(scheme):
        raise EdgeAdError(
            f"camera '{text}' names no scheme", f"one of: {schemes}", f"a folder is written folder:{text}"
        )
    if known and scheme not in known:
        raise EdgeAdError(f"camera '{text}': unknown scheme '{scheme}:'", f"one of: {schemes}")
    path, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        key = unquote(key)
        if not equals or not key:
            raise EdgeAdError(f"camera '{text}': option '{pair}'", "KEY=VALUE")
        if key in options:
            raise EdgeAdError(f"camera '{text}': option '{key}' is given twice", "one value")
        options[key] = unquote(value)
    return Uri(scheme, unquote(path), options)
