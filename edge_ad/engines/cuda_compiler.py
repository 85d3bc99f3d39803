"""nvcc or NVRTC: one kernel source to a cubin for one compute capability. Lean.

nvcc compiles where it is installed, NVRTC (a library, part of every CUDA runtime installation) elsewhere; both see one
text without any header. A kernel whose registers spill to memory is refused. Compiled kernels are kept in the user's
cache by the hash of their source, flags, target and compiler, so only the first build of a machine waits.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, write_bytes, write_json
from edge_ad.runtime import kernels

OLDEST = (8, 0)
"""The kernels reduce over a warp in one instruction and multiply FP16 on the tensor cores; older devices do neither."""
_NVRTC = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2")
_FUNCTION = re.compile(
    r"Compiling entry function '(?P<entry>\w+)' for '\w+'(?P<rest>.*?)(?=Compiling entry function|\Z)", re.DOTALL
)


@dataclass(frozen=True)
class Resources:
    """What ptxas reports of one kernel: registers a thread, bytes of static shared memory, stack and spills."""

    entry: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True)
class Compiled:
    """One source's cubin for one capability."""

    name: str
    cubin: bytes
    resources: tuple[Resources, ...]


def find_nvcc() -> str | None:
    """nvcc: in ``$CUDA_HOME``, on the path, or where JetPack and the toolkit's packages put it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [Path(home) / "bin" / "nvcc"] if home else []
    on_path = shutil.which("nvcc")
    places += [Path(on_path)] if on_path else []
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((str(p) for p in places if os.access(p, os.X_OK)), None)


@lru_cache(maxsize=1)
def find_nvrtc() -> Any:
    """NVRTC's library (a ``ctypes`` handle), from the system or from the package nvidia-cuda-nvrtc, or None."""
    places: list[str] = list(_NVRTC)
    spec = find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        places += [str(p) for p in sorted(Path(root).glob("*/lib/libnvrtc.so*"), reverse=True)]
    places += [str(p) for p in sorted(Path("/usr/local/cuda").glob("**/libnvrtc.so*"), reverse=True)]
    for place in places:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


@lru_cache(maxsize=8)
def _nvcc_version(nvcc: str) -> str:
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True)
    except OSError as e:
        raise EdgeAdError(f"{nvcc} does not start ({e.strerror})", "a CUDA toolkit that works") from e
    found = re.search(r"V(\d+\.\d+\.\d+)", done.stdout)
    return f"nvcc {found[1]}" if found else "nvcc"


def _nvrtc_version(library: Any) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"nvrtc {major.value}.{minor.value}"


def compiler() -> str | None:
    """The compiler here with its version, ``"nvcc 13.0.88"`` or ``"nvrtc 13.0"``, or None."""
    nvcc = find_nvcc()
    if nvcc is not None:
        return _nvcc_version(nvcc)
    library = find_nvrtc()
    return _nvrtc_version(library) if library is not None else None


def parse_resources(log: str) -> tuple[Resources, ...]:
    """What ``ptxas -v`` said of every kernel."""
    out = []
    for match in _FUNCTION.finditer(log):
        rest = match["rest"]

        def number(pattern: str, rest: str = rest) -> int:
            return sum(int(n) for n in re.findall(pattern, rest))

        out.append(
            Resources(
                match["entry"],
                number(r"Used (\d+) registers"),
                number(r"(\d+) bytes smem"),
                number(r"(\d+) bytes stack frame"),
                number(r"(\d+) bytes spill (?:stores|loads)"),
            )
        )
    return tuple(out)


def compile_kernel(name: str, capability: tuple[int, int], use: str | None = None, *, cache: bool = True) -> Compiled:
    """Compile one source for a compute capability.

    Parameters
    ----------
    name : a source of ``edge_ad.runtime.kernels``. use : ``"nvcc"``, ``"nvrtc"`` or None for what is there.
    cache : take and keep cubins in the user's cache.

    Raises
    ------
    EdgeAdError
        A capability below 8.0, no compiler, one that does not know the capability, what it said against the source, or
        spills.
    """
    if capability < OLDEST:
        raise EdgeAdError(f"CUDA kernels for compute capability {capability[0]}.{capability[1]}", "8.0 or newer")
    nvcc = find_nvcc() if use in (None, "nvcc") else None
    library = find_nvrtc() if nvcc is None and use in (None, "nvrtc") else None
    if nvcc is None and library is None:
        raise EdgeAdError(
            f"no {use or 'CUDA compiler'} here",
            "nvcc or NVRTC",
            "install the CUDA toolkit (JetPack: apt install nvidia-cuda), or: pip install nvidia-cuda-nvrtc",
        )
    version = _nvcc_version(nvcc) if nvcc is not None else _nvrtc_version(library)
    key = sha256(f"{kernels.sha256(name)} {capability} {version}".encode()).hexdigest()
    kept = _cache() / f"{name}-{key[:32]}"
    if cache and (found := _from_cache(name, kept)) is not None:
        return found
    if nvcc is not None:
        cubin, log = _with_nvcc(nvcc, name, capability)
    else:
        cubin, log = _with_nvrtc(library, name, capability)
    compiled = Compiled(name, cubin, parse_resources(log))
    missing = sorted(set(kernels.entries(name)) - {r.entry for r in compiled.resources})
    if missing:
        raise EdgeAdError(f"{version} said nothing of {', '.join(missing)} in {name}.cu", "ptxas -v for every kernel")
    spilling = [f"{r.entry} ({r.spill_bytes} bytes)" for r in compiled.resources if r.spill_bytes]
    if spilling:
        raise EdgeAdError(
            f"{name}.cu for sm_{capability[0]}{capability[1]}: registers of {', '.join(spilling)} spill to memory",
            "no spills",
            "lower the kernel's work a thread or its launch bounds",
        )
    if cache:
        _to_cache(kept, compiled)
    return compiled


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "edge-ad" / "kernels"


def _from_cache(name: str, kept: Path) -> Compiled | None:
    try:
        values = read_json(kept.with_suffix(".json"))
        cubin = kept.with_suffix(".cubin").read_bytes()
        if sha256(cubin).hexdigest() != values["sha256"]:
            return None
        return Compiled(name, cubin, tuple(Resources(**r) for r in values["resources"]))
    except (EdgeAdError, OSError, KeyError, TypeError):
        return None


def _to_cache(kept: Path, compiled: Compiled) -> None:
    try:
        write_bytes(kept.with_suffix(".cubin"), compiled.cubin)
        resources = [asdict(r) for r in compiled.resources]
        write_json(kept.with_suffix(".json"), {"sha256": sha256(compiled.cubin).hexdigest(), "resources": resources})
    except EdgeAdError:  # a home that cannot be written to costs time, nothing else
        return


def _with_nvcc(nvcc: str, name: str, capability: tuple[int, int]) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / f"{name}.cu", Path(work) / f"{name}.cubin"
        source.write_text(kernels.text(name), encoding="utf-8")
        arch = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [nvcc, arch, "-cubin", "-Xptxas", "-v", *kernels.flags(name), "-o", str(out), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise _refused(f"{_nvcc_version(nvcc)}", name, capability, done.stderr)
        return out.read_bytes(), done.stderr


def _with_nvrtc(library: Any, name: str, capability: tuple[int, int]) -> tuple[bytes, str]:
    program = ctypes.c_void_p()
    source = kernels.text(name).encode()
    library.nvrtcCreateProgram(ctypes.byref(program), source, f"{name}.cu".encode(), 0, None, None)
    options = (f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--ptxas-options=-v", *kernels.flags(name))
    given = (ctypes.c_char_p * len(options))(*(o.replace("-std", "--std").encode() for o in options))
    try:
        failed = library.nvrtcCompileProgram(program, len(options), given)
        log = _nvrtc_bytes(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).decode(errors="replace")
        if failed:
            raise _refused(_nvrtc_version(library), name, capability, log)
        return _nvrtc_bytes(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc_bytes(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    if size_of(program, ctypes.byref(size)):
        return b""
    buffer = ctypes.create_string_buffer(max(1, size.value))
    read(program, buffer)
    return buffer.raw[: size.value]


def _refused(version: str, name: str, capability: tuple[int, int], log: str) -> EdgeAdError:
    said = next((line for line in log.splitlines() if "error" in line or "fatal" in line), log.strip()[:300])
    unknown = "arch" in said  # nvcc: "Unsupported gpu architecture"; NVRTC: "invalid value for --gpu-architecture"
    return EdgeAdError(
        f"{version} refused {name}.cu for sm_{capability[0]}{capability[1]}: {said.strip()}",
        "a CUDA toolkit that knows this GPU (sm_110 and sm_120: 13.0 or newer)" if unknown else "",
    )
