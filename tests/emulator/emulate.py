"""Launch CUDA kernels on the CPU: ``emulate("fps.cu").farthest_point_sample[grid, block, shared](points, ...)``.

The source that nvcc compiles is compiled by g++ against ``include/cuda_block_emulator.h`` (``-ffp-contract=off``: no
fused multiply-add but those that are written) into a shared library, kept in a cache by the hash of all that went in.
A launch takes NumPy arrays for pointers (their dtypes are held against the kernel's parameters, and what the kernel
writes is in them afterwards) and numbers for values.

With ``EDGE_AD_EMULATOR=address`` in the environment the libraries are built with AddressSanitizer and
UndefinedBehaviorSanitizer; :func:`sanitized_environment` gives the whole environment for such a process. With
``EDGE_AD_EMULATOR=race`` every access of a kernel is watched, and two that nothing orders end the launch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

INCLUDE = Path(__file__).parent / "include"
SCHEDULES = ("forward", "reverse", "random")
MODE = "EDGE_AD_EMULATOR"
ON_HOST = "EDGE_AD_CUDA_ON_HOST"
"""Set where PyCUDA drives the emulated kernels (tests/gpu/cuda_on_host)."""
FLAGS = ("-std=c++17", "-ffp-contract=off", "-fno-gnu-unique", "-fno-strict-aliasing", "-fPIC", "-w")
_ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=emu_shared")
# Flags of the kernel, of the machine, of the link. A race build takes the thread sanitizer's instrumentation alone: the
# machine has the hooks, its library (which knows nothing of fibers and barriers) is not linked.
MODES = {
    "": (("-O2",), ("-O2",), ()),
    "address": (
        ("-O1", "-g", "-fno-omit-frame-pointer", *_ADDRESS),
        ("-O1", "-g", "-fno-omit-frame-pointer", *_ADDRESS),
        _ADDRESS,
    ),
    "race": (
        ("-O1", "-gdwarf-4", "-fsanitize=thread", "--param=tsan-distinguish-volatile=1"),
        ("-O2", "-g", "-DEMU_RACE"),
        (),
    ),
}
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(', re.MULTILINE
)


class EmulationError(Exception):
    """What a kernel did wrong: a barrier that not all reach, a write outside its memory, a wrong mask."""


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint64),
        ("schedule", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
    )


class _Argument(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("buffer", ctypes.c_int32))


def compiler() -> str | None:
    """g++, or None."""
    return shutil.which("g++")


def examples(n: int) -> int:
    """How many examples a property test of a kernel takes: fewer in the slow builds, and through PyCUDA on the host."""
    if os.environ.get(ON_HOST):
        return 3
    return max(4, n // {"": 1, "address": 4, "race": 8}[os.environ.get(MODE, "")])


needs_compiler = pytest.mark.skipif(compiler() is None, reason="the block emulator needs g++ (apt install g++)")


class Kernel:
    """One kernel of a module: ``kernel[grid, block](...)`` or ``kernel[grid, block, shared_bytes](...)``."""

    def __init__(self, module: Emulated, name: str) -> None:
        self.module, self.name = module, name
        self._launch = getattr(module.library, f"emu_launch_{name}")
        signature = getattr(module.library, f"emu_signature_{name}")
        signature.restype = ctypes.c_char_p
        text = signature().decode()
        self.parameters = tuple(text.split(",")) if text else ()

    def __getitem__(self, launch: tuple[Any, ...]) -> Any:
        grid, block, *shared = launch
        config = _Config(_three(grid), _three(block), int(shared[0]) if shared else 0)

        def call(*values: Any) -> None:
            self._call(config, values)

        return call

    def _call(self, config: _Config, values: Sequence[Any]) -> None:
        if len(values) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments {self.parameters}, not {len(values)}")
        config.schedule, config.seed = SCHEDULES.index(self.module.schedule), self.module.seed
        kept: list[Any] = []
        arguments = (_Argument * max(1, len(values)))()
        for i, (value, parameter) in enumerate(zip(values, self.parameters)):
            arguments[i] = _argument(f"{self.name}, argument {i}", value, parameter, kept)
        text = ctypes.create_string_buffer(512)
        if self._launch(ctypes.byref(config), arguments, text, ctypes.c_size_t(len(text))):
            raise EmulationError(f"{self.name}: {_with_lines(text.value.decode(), self.module.path)}")


def _with_lines(text: str, library: Path) -> str:
    """Code addresses, ``{0x7f...}``, as file and line where addr2line is there."""
    found = re.findall(r"\{(0x[0-9a-f]+)\}", text)
    tool = shutil.which("addr2line")
    if not found or tool is None:
        return text
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    starts = [int(line.split("-")[0], 16) for line in maps if line.endswith(library.name)]
    if not starts:
        return text
    base = min(starts)
    for address in found:
        # The address after the access: one byte back is inside its instruction.
        offset = hex(int(address, 16) - base - 1)
        done = subprocess.run([tool, "-s", "-e", str(library), offset], capture_output=True, text=True)
        text = text.replace(f"{{{address}}}", done.stdout.strip().split(" ")[0] or address)
    return text


def _three(size: int | Sequence[int]) -> Any:
    sizes = (size,) if isinstance(size, int | np.integer) else tuple(size)
    return (ctypes.c_uint32 * 3)(*(int(s) for s in sizes), *(1,) * (3 - len(sizes)))


def _argument(where: str, value: Any, parameter: str, kept: list[Any]) -> _Argument:
    if parameter.endswith("*"):
        if value is None:
            return _Argument(None, 0, 1)
        wanted = parameter.removeprefix("const ").rstrip("*")
        if not isinstance(value, np.ndarray) or not value.flags.c_contiguous:
            raise TypeError(f"{where}: {type(value).__name__}, expected a contiguous array for {parameter}")
        found = "b1" if value.dtype == np.bool_ else f"{value.dtype.kind}{value.dtype.itemsize}"
        # A struct or vector type takes an array of anything that divides into it; bool and uint8 are one byte each.
        if wanted[0] != "V" and found != wanted and {found, wanted} != {"b1", "u1"}:
            raise TypeError(f"{where}: an array of {value.dtype}, expected {parameter}")
        if not parameter.startswith("const ") and not value.flags.writeable:
            raise TypeError(f"{where}: a read-only array for {parameter}")
        return _Argument(value.ctypes.data, value.nbytes, 1)
    if isinstance(value, ctypes.Structure):
        size = ctypes.sizeof(value)
        if size != int(parameter[1:]):
            raise TypeError(f"{where}: a structure of {size} bytes, expected {parameter[1:]}")
        kept.append(value)
        return _Argument(ctypes.addressof(value), size, 0)
    scalar = np.array(value, dtype="?" if parameter == "b1" else parameter)
    if parameter[0] in "iu" and scalar.item() != value:
        raise TypeError(f"{where}: {value!r}, expected a number that {parameter} holds")
    kept.append(scalar)
    return _Argument(scalar.ctypes.data, scalar.nbytes, 0)


class Emulated:
    """The kernels of one source file, by name as attributes.

    schedule : ``forward``, ``reverse`` or ``random``: the order of the threads between two barriers, and of the blocks.
    seed : of the random order.
    """

    def __init__(self, library: Path, names: Sequence[str]) -> None:
        self.path, self.library = library, ctypes.CDLL(str(library))
        self.names = tuple(names)
        self.schedule, self.seed = "forward", 0
        self._kernels: dict[str, Kernel] = {}

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("_") or name not in self.names:
            raise AttributeError(f"no kernel {name}; there are {', '.join(self.names)}")
        if name not in self._kernels:
            self._kernels[name] = Kernel(self, name)
        return self._kernels[name]

    def use(self, schedule: str, seed: int = 0) -> Emulated:
        """Set the order of threads and blocks for the launches that follow; returns the module."""
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule {schedule!r}, expected one of {SCHEDULES}")
        self.schedule, self.seed = schedule, seed
        return self


def emulate(source: str | Path, defines: Sequence[str] = (), *, mode: str | None = None) -> Emulated:
    """Compile ``source`` (a path, or a kernel's name under ``edge_ad/runtime/kernels``) and load its kernels.

    Parameters
    ----------
    defines : ``("TILE=64", ...)`` for the preprocessor.
    mode : ``"address"``, ``"race"`` or ``""``; None: as ``EDGE_AD_EMULATOR`` says.
    """
    path = Path(source)
    if not path.suffix:
        import edge_ad.runtime

        path = Path(edge_ad.runtime.__file__).parent / "kernels" / f"{source}.cu"
    return _load(path.resolve(), tuple(defines), os.environ.get(MODE, "") if mode is None else mode)


@cache
def _load(path: Path, defines: tuple[str, ...], mode: str) -> Emulated:
    names = kernel_names(path.read_text(encoding="utf-8"))
    kernel_flags, machine_flags, link_flags = MODES[mode]
    flags = (*kernel_flags, *(f"-D{d}" for d in defines), "-DEDGE_AD_EMULATED")
    digest = hashlib.sha256(" ".join((*FLAGS, *flags)).encode())
    machine = hashlib.sha256(" ".join((*FLAGS, *machine_flags)).encode())
    for part in sorted(INCLUDE.iterdir()):
        machine.update(part.name.encode() + b"\0" + part.read_bytes())
    digest.update(machine.digest())
    for part in (path, *sorted(path.parent.glob("*.cuh"))):
        digest.update(part.name.encode() + b"\0" + part.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"edge-ad-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    library = folder / f"{path.stem}-{digest.hexdigest()[:20]}.so"
    if not library.exists():
        core = folder / f"machine-{machine.hexdigest()[:20]}.o"
        if not core.exists():
            _compile((INCLUDE / "machine.cpp",), (*machine_flags, "-c"), core)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            wrapper = Path(work) / f"{path.stem}.cpp"
            entries = "\n".join(f"EMULATED_KERNEL({n})" for n in names)
            wrapper.write_text(f'#include "cuda_block_emulator.h"\n#include "{path}"\n{entries}\n', encoding="utf-8")
            _compile((wrapper,), (*flags, f"-I{path.parent}", "-c"), wrapper.with_suffix(".o"))
            _compile((wrapper.with_suffix(".o"), core), (*link_flags, "-shared"), library)
    return Emulated(library, names)


def kernel_names(text: str) -> list[str]:
    """Names of the ``extern "C" __global__`` functions of a source, in order."""
    return _KERNEL.findall(text)


def _compile(sources: Sequence[Path], flags: Sequence[str], out: Path) -> None:
    gxx = compiler()
    if gxx is None:
        raise RuntimeError("the block emulator needs g++ (apt install g++)")
    made = out.with_name(f".{out.name}.{os.getpid()}.tmp")  # several processes may compile the same at once
    command = [gxx, *FLAGS, *flags, f"-I{INCLUDE}", *(str(p) for p in sources), "-o", str(made)]
    clean = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # the compiler itself needs no sanitizer
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise RuntimeError(f"{sources[0].stem}.cu does not compile for the emulator:\n{done.stderr[-4000:]}")
    os.replace(made, out)


def sanitized_environment() -> dict[str, str] | None:
    """The environment of a process whose emulated kernels run under the sanitizers, or None without libasan."""
    gxx = compiler()
    if gxx is None:
        return None
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run([gxx, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(found):
            return None
        libraries.append(os.path.realpath(found))
    return os.environ | {
        MODE: "address",
        "LD_PRELOAD": " ".join(libraries),
        # The interpreter itself leaks by design; a fake stack would not follow the fibers.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
    }
