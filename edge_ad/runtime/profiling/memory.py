"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path


def resident_mb() -> float:
    """Resident memory now, 10^6 bytes; NaN where the system does not tell."""
    return _status("VmRSS")


def peak_mb() -> float:
    """Highest resident memory since the process started, 10^6 bytes."""
    found = _status("VmHWM")
    if found == found:
        return found
    import resource

    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return top / 1e6 if sys.platform == "darwin" else top * 1024 / 1e6


def process_age_s() -> float:
    """Seconds since this process started, the interpreter and its imports included; NaN where it is not known."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), after the name
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return float("nan")


def _status(name: str) -> float:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return float("nan")
    match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else float("nan")
