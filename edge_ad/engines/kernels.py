"""CUDA kernels as cubins, stored with an engine, so that ``run`` needs no compiler. Lean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_ad.engines.cuda_compiler import OLDEST, Compiled, compile_kernel, compiler, find_nvcc
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, write_bytes, write_json
from edge_ad.parallel import cores
from edge_ad.runtime import kernels

FOLDER = "kernels"
SIDECAR = "kernels.json"
SCHEMA = 1


def build_kernels(
    folder: Path, capabilities: Sequence[tuple[int, int]], progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Compile every kernel for every capability into ``folder`` (an engine being built), with a sidecar of hashes.

    Returns
    -------
    The cubins' paths, ``FOLDER/NAME.smXY.cubin`` under ``folder``.
    """
    say = progress or (lambda _: None)
    written: list[Path] = []
    records: dict[str, Any] = {}
    for capability in capabilities:
        mark = f"{capability[0]}.{capability[1]}"
        say(f"compiling {len(kernels.names())} kernel sources for compute capability {mark}")
        for compiled in _compile_all(capability):
            name = compiled.name
            path = folder / FOLDER / _file(name, capability)
            write_bytes(path, compiled.cubin)
            written.append(path)
            records[path.name] = {
                "source": name,
                "capability": mark,
                "source_sha256": kernels.sha256(name),
                "sha256": sha256(compiled.cubin).hexdigest(),
                "kernels": [asdict(r) for r in compiled.resources],
            }
    write_json(folder / FOLDER / SIDECAR, {"schema": SCHEMA, "compiler": compiler(), "cubins": records})
    return written


def _compile_all(capability: tuple[int, int]) -> list[Compiled]:
    # nvcc is a process of its own, so threads suffice; NVRTC keeps its state to itself and takes its turn.
    with ThreadPoolExecutor(cores() if find_nvcc() is not None else 1) as pool:
        return list(pool.map(lambda name: compile_kernel(name, capability), kernels.names()))


def add_kernels(folder: Path, capabilities: Sequence[tuple[int, int]], progress: Callable[[str], None]) -> list[Path]:
    """:func:`build_kernels` where it can be done; where there is no compiler, or no named device, that is said."""
    if compiler() is None:
        progress("no nvcc or NVRTC here: the engine holds no CUDA kernels, so it cannot serve the device pipeline")
        return []
    if not capabilities:
        progress("a portable engine holds no CUDA kernels: name compute capabilities to serve the device pipeline")
        return []
    able = [c for c in capabilities if c >= OLDEST]
    if len(able) < len(capabilities):
        old = ", ".join(f"{major}.{minor}" for major, minor in capabilities if (major, minor) < OLDEST)
        progress(f"no CUDA kernels for compute capability {old} (8.0 is the least): no device pipeline there")
    return build_kernels(folder, able, progress) if able else []


def _file(name: str, capability: tuple[int, int]) -> str:
    return f"{name}.sm{capability[0]}{capability[1]}.cubin"


def read_kernels(folder: Path, capability: tuple[int, int], remedy: str = "") -> dict[str, bytes]:
    """The cubins of an engine for one device, by source name, each checked against its hash.

    Parameters
    ----------
    folder : the engine's. remedy : the command that builds it again.

    Raises
    ------
    EdgeAdError
        None were built, or for other devices only, one is missing or damaged, or made from other sources than this
        program's.
    """
    path = folder / FOLDER / SIDECAR
    if not path.is_file():
        raise EdgeAdError(f"engine {folder.name} holds no CUDA kernels", "kernels built with it", remedy)
    try:
        values = read_json(path)
    except EdgeAdError as e:
        raise EdgeAdError(e.found, "a list of kernels", remedy) from None
    records = values.get("cubins") if isinstance(values, dict) else None
    if not isinstance(records, dict) or values.get("schema") != SCHEMA:
        raise EdgeAdError(f"{path} is no list of kernels of schema {SCHEMA}", "", remedy)
    out: dict[str, bytes] = {}
    here = f"{capability[0]}.{capability[1]}"
    for name in kernels.names():
        file = _file(name, capability)
        record = records.get(file)
        if not isinstance(record, dict):
            built = sorted({str(r.get("capability")) for r in records.values() if isinstance(r, dict)})
            raise EdgeAdError(
                f"engine {folder.name} holds no kernel {name} for compute capability {here} (built for "
                f"{', '.join(built) or 'none'})",
                "",
                remedy,
            )
        if record.get("source_sha256") != kernels.sha256(name):
            raise EdgeAdError(f"engine {folder.name}: {file} was compiled from another {name}.cu", "this one", remedy)
        try:
            cubin = (path.parent / file).read_bytes()
        except OSError:
            raise EdgeAdError(f"engine {folder.name}: {file} is missing", "every file of its sidecar", remedy) from None
        if sha256(cubin).hexdigest() != record.get("sha256"):
            raise EdgeAdError(f"engine {folder.name}: {file} is not the file of its sidecar", "", remedy)
        out[name] = cubin
    return out
