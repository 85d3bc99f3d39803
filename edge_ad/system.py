"""What the system says about itself. Lean; the standard library alone."""

from __future__ import annotations

import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def told_by(path: Path) -> str:
    """What a file of the system says (/proc, /sys, /etc); empty where it is absent or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def processor_name() -> str:
    """As the system calls it."""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", told_by(CPUINFO), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
