"""A Jetson held against ``docs/jetson.md``: one check a line of that page. Reads files and asks ``nvpmodel``; no GPU.

Every fact comes through :class:`Facts`, so that a board can be described in a test.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from edge_ad.engines.known_faults import known_faults, version_tuple
from edge_ad.system import told_by

# First line of /etc/nv_tegra_release -> the Python that JetPack's own packages are built for.
PYTHON_OF_RELEASE = {36: (3, 10), 38: (3, 12), 39: (3, 12)}
CAPABILITY_OF_CHIP = {"tegra234": (8, 7), "tegra264": (11, 0)}
NOT_FOR_THE_BOARD = ("torch", "onnx", "openvino", "tensorrt_rtx")
SMALL_GIB = 8.5
LEAST_FREE_MB = 1500


@dataclass(frozen=True)
class Facts:
    """What the checks look at.

    release : first line of ``/etc/nv_tegra_release``; empty: no Jetson. chip : from the device tree, e.g. ``tegra234``.
    modules, distributions : that this Python sees. total_mb, available_mb, swap_mb : of host memory, which the GPU
    shares. power_mode : what ``nvpmodel -q`` says, or None. system_site : whether this environment sees the system's.
    """

    release: str = ""
    chip: str = ""
    python: tuple[int, int] = (3, 10)
    modules: frozenset[str] = frozenset()
    distributions: frozenset[str] = frozenset()
    tensorrt: str | None = None
    total_mb: int = 0
    available_mb: int = 0
    swap_mb: int = 0
    power_mode: str | None = None
    clocks_fixed: bool | None = None
    system_site: bool = True
    desktop: bool = False


@dataclass(frozen=True)
class BoardCheck:
    """One line of docs/jetson.md: ``state`` is ``ok`` or ``mend``; ``remedy`` is empty when there is nothing to do."""

    name: str
    state: str
    found: str
    remedy: str = field(default="")


def board_checks(facts: Facts) -> list[BoardCheck]:
    """All checks of a Jetson, in the page's order; empty on any other machine."""
    return [check(facts) for check in CHECKS] if facts.release else []


def _check(name: str, good: bool, found: str, remedy: str) -> BoardCheck:
    return BoardCheck(name, "ok" if good else "mend", found, "" if good else remedy)


def _python(f: Facts) -> BoardCheck:
    number = re.search(r"R(\d+)", f.release)
    wanted = PYTHON_OF_RELEASE.get(int(number[1]) if number else 0)
    here = f"{f.python[0]}.{f.python[1]}"
    told = "" if wanted is None else f"{wanted[0]}.{wanted[1]}"
    return _check(
        "python",
        wanted in (None, f.python),
        f"Python {here}, {f.release or 'unknown release'}",
        f"use Python {told}, for which this JetPack's TensorRT is built: "
        f"python{told} -m venv --system-site-packages .venv",
    )


def _site(f: Facts) -> BoardCheck:
    return _check(
        "system-site-packages",
        f.system_site,
        "this environment sees the system's packages" if f.system_site else "this environment does not see them",
        "make it anew: python3 -m venv --system-site-packages .venv",
    )


def _tensorrt(f: Facts) -> BoardCheck:
    return _check(
        "tensorrt",
        f.tensorrt is not None,
        f"TensorRT {f.tensorrt}" if f.tensorrt else "no TensorRT",
        "sudo apt install python3-libnvinfer",
    )


def _wheels(f: Facts) -> BoardCheck:
    found = sorted(d for d in f.distributions if re.fullmatch(r"tensorrt(-|_)?(cu\d+.*|libs|bindings)?", d))
    wheels = [d for d in found if d != "tensorrt"]  # JetPack's own package is called tensorrt as well
    return _check(
        "no TensorRT from PyPI",
        not wheels,
        ", ".join(wheels) or "none",
        f"pip uninstall {' '.join(wheels)}: such wheels hide JetPack's own",
    )


def _version(f: Facts) -> BoardCheck:
    faults = known_faults("tensorrt", f.tensorrt or "", CAPABILITY_OF_CHIP.get(f.chip))
    return _check(
        "TensorRT version",
        not faults,
        "; ".join(faults) or ("nothing is known against it" if f.tensorrt else "no TensorRT"),
        "the golden frames decide about each engine; update JetPack when they refuse it",
    )


def _cuda(f: Facts) -> BoardCheck:
    found = "pycuda" in f.modules
    return _check("pycuda", found, "present" if found else "missing", "pip install 'edge-ad[cuda]'")


def _extras(f: Facts) -> BoardCheck:
    heavy = [m for m in NOT_FOR_THE_BOARD if m in f.modules]
    return _check(
        "extras",
        not heavy,
        ", ".join(heavy) or "none that the board does not need",
        "they take memory and disk; a board needs the core and 'cuda' alone (realsense with such a camera)",
    )


def _memory(f: Facts) -> BoardCheck:
    good = f.available_mb >= LEAST_FREE_MB
    return _check(
        "free memory",
        good,
        f"{f.available_mb} of {f.total_mb} MB available",
        f"free {LEAST_FREE_MB} MB before building an engine: close programs, "
        "sudo systemctl set-default multi-user.target",
    )


def _workspace(f: Facts) -> BoardCheck:
    small = f.total_mb < SMALL_GIB * 1024
    good = not small or (f.swap_mb >= 2048 and not f.desktop)
    what = "8 GB board" if small else "larger board"
    desktop = ", desktop running" if f.desktop else ""
    return _check(
        "workspace",
        good,
        f"{what}, {f.swap_mb} MB swap{desktop}",
        "build with --workspace-mb 512, without the desktop and with 2 GB of swap or more",
    )


def _power(f: Facts) -> BoardCheck:
    full = f.power_mode is not None and "MAXN" in f.power_mode.upper()
    return _check(
        "power mode",
        full,
        f.power_mode or "unknown (nvpmodel -q)",
        "sudo nvpmodel -m 0 (-m 2 on an Orin Nano); write the mode down with every figure",
    )


def _clocks(f: Facts) -> BoardCheck:
    state = {None: "unknown", True: "fixed", False: "vary with the load"}[f.clocks_fixed]
    return _check("clocks", f.clocks_fixed is not False, state, "sudo jetson_clocks, for figures that repeat")


CHECKS: tuple[Callable[[Facts], BoardCheck], ...] = (
    _python,
    _site,
    _tensorrt,
    _wheels,
    _version,
    _cuda,
    _extras,
    _memory,
    _workspace,
    _power,
    _clocks,
)


def gather(root: Path = Path("/")) -> Facts:
    """The facts of this machine; most are empty where it is no Jetson.

    Parameters
    ----------
    root : folder in which ``etc``, ``proc`` and ``sys`` lie.
    """
    release = told_by(root / "etc/nv_tegra_release").partition("\n")[0].lstrip("# ").strip()
    if not release:
        return Facts()
    compatible = told_by(root / "proc/device-tree/compatible")
    chip = re.search(r"tegra\d+", compatible)
    memory = {
        k: int(v) >> 10 for k, v in re.findall(r"^(\w+):\s+(\d+) kB$", told_by(root / "proc/meminfo"), re.MULTILINE)
    }
    distributions = frozenset((d.metadata["Name"] or "").lower() for d in metadata.distributions())
    present = frozenset(m for m in ("tensorrt", "pycuda", *NOT_FOR_THE_BOARD) if _has(m))
    return Facts(
        release=release,
        chip=chip[0] if chip else "",
        python=(sys.version_info[0], sys.version_info[1]),
        modules=present,
        distributions=distributions,
        tensorrt=_version_of("tensorrt") if "tensorrt" in present else None,
        total_mb=memory.get("MemTotal", 0),
        available_mb=memory.get("MemAvailable", 0),
        swap_mb=memory.get("SwapTotal", 0),
        power_mode=_power_mode(),
        clocks_fixed=_clocks_fixed(root),
        system_site=_sees_system(),
        desktop=(root / "run/systemd/units").is_dir() and any((root / "tmp/.X11-unix").glob("X*")),
    )


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version_of(distribution: str) -> str | None:
    try:
        found = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"
    return found if version_tuple(found) else "of unknown version"


def _sees_system() -> bool:
    if sys.prefix == sys.base_prefix:
        return True
    return "include-system-site-packages = true" in told_by(Path(sys.prefix) / "pyvenv.cfg").lower()


def _power_mode() -> str | None:
    if shutil.which("nvpmodel") is None:
        return None
    try:
        answer = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"NV Power Mode:\s*(\S+)", answer)
    return found[1] if found else None


def _clocks_fixed(root: Path) -> bool | None:
    """Whether the GPU's least frequency equals its greatest, as ``jetson_clocks`` sets it; None: not readable."""
    for folder in sorted((root / "sys/class/devfreq").glob("*gpu*")):
        low, high = told_by(folder / "min_freq").strip(), told_by(folder / "max_freq").strip()
        if low and high:
            return low == high
    return None
