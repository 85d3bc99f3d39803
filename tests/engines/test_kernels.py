"""Kernels to cubins: the compilers, spills, the sidecar, and what is refused in words."""

from __future__ import annotations

import json
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_ad.engines import build_engines, cuda_compiler, read_sidecar
from edge_ad.engines.cuda_compiler import compile_kernel, find_nvcc, find_nvrtc, parse_resources
from edge_ad.engines.kernels import FOLDER, SIDECAR, add_kernels, build_kernels, read_kernels
from edge_ad.errors import EdgeAdError
from edge_ad.runtime import cuda, kernels
from tests.bundles import tiny_bundle

ORIN = (8, 7)
TARGETS = [(8, 0), (8, 6), ORIN, (8, 9), (9, 0), (11, 0), (12, 0)]
needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc (the CUDA toolkit)")

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_87'
ptxas info    : Function properties for first
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 1280 bytes smem, 424 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_87'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 376 bytes cmem[0]
"""


def test_what_ptxas_reports_is_read() -> None:
    first, second = parse_resources(LOG.format(stack=24, stores=8, loads=12))
    assert (first.entry, first.registers, first.shared_bytes, first.stack_bytes, first.spill_bytes) == (
        "first",
        48,
        1280,
        24,
        20,
    )
    assert (second.entry, second.registers, second.shared_bytes, second.spill_bytes) == ("second", 8, 0, 0)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel folder with one source and its header, and an empty cache."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "size.cuh").write_text("#pragma once\n#define SIZE 4\n")
    (folder / "tiny.cu").write_text(
        '#include "size.cuh"\nextern "C" __global__ void __launch_bounds__(32)\nfill(float* out) '
        "{ if (threadIdx.x < SIZE) out[threadIdx.x] = 1.0f; }\n"
    )
    monkeypatch.setattr(kernels, "FOLDER", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels.entries.cache_clear()
    yield folder
    kernels.entries.cache_clear()


def fake_nvcc(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, log: str, code: int = 0, version: str = "12.6.1"
) -> Path:
    """A program that answers as nvcc does, and counts its compilations."""
    path = folder / "nvcc"
    (folder / "log").write_text(log)
    path.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release 12.6, V{version}"; exit 0; fi
echo "$@" >> {folder}/calls
while [ $# -gt 1 ]; do if [ "$1" = -o ]; then printf cubin > "$2"; fi; shift; done
cat {folder}/log >&2
exit {code}
"""
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(cuda_compiler, "find_nvcc", lambda: str(path))
    cuda_compiler._nvcc_version.cache_clear()
    return folder / "calls"


GOOD = """ptxas info    : Compiling entry function 'fill' for 'sm_87'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 360 bytes cmem[0]
"""


def test_kernels_are_stored_and_read_back(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    engine = tmp_path / "engine"
    said: list[str] = []
    written = build_kernels(engine, [ORIN, (9, 0)], said.append)
    assert [p.name for p in written] == ["tiny.sm87.cubin", "tiny.sm90.cubin"]
    assert said == ["compiling 1 kernel sources for compute capability 8.7", said[1]]
    assert read_kernels(engine, ORIN) == {"tiny": b"cubin"}
    sidecar = json.loads((engine / FOLDER / SIDECAR).read_text())
    assert sidecar["compiler"] == "nvcc 12.6.1"
    assert sidecar["cubins"]["tiny.sm87.cubin"]["kernels"][0]["registers"] == 8
    # Both compiled once; the second build of this machine takes them from the cache.
    build_kernels(tmp_path / "again", [ORIN, (9, 0)])
    assert len(calls.read_text().splitlines()) == 2
    assert "-arch=sm_87 -cubin" in calls.read_text() and "-fmad=false" in calls.read_text()


def test_another_source_is_compiled_again(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    engine = tmp_path / "engine"
    build_kernels(engine, [ORIN])
    (small / "size.cuh").write_text("#pragma once\n#define SIZE 5\n")  # a header counts as the source does
    with pytest.raises(EdgeAdError, match=r"tiny.sm87.cubin was compiled from another tiny.cu; .*run: again"):
        read_kernels(engine, ORIN, "run: again")
    compile_kernel("tiny", ORIN)
    assert len(calls.read_text().splitlines()) == 2


def damage(folder: Path, how: str) -> None:
    file, sidecar = folder / FOLDER / "tiny.sm87.cubin", folder / FOLDER / SIDECAR
    if how == "changed":
        file.write_bytes(b"other")
    elif how == "missing":
        file.unlink()
    elif how == "no sidecar":
        sidecar.unlink()
    elif how == "foreign":
        sidecar.write_text("[1]")
    elif how == "cut off":
        sidecar.write_text('{"schema": 1, "cub')
    elif how == "from the future":
        sidecar.write_text(json.dumps({"schema": 2, "cubins": {}}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("changed", "tiny.sm87.cubin is not the file of its sidecar"),
        ("missing", "tiny.sm87.cubin is missing"),
        ("no sidecar", "holds no CUDA kernels; expected kernels built with it; run: again"),
        ("foreign", "no list of kernels of schema 1"),
        ("cut off", "kernels.json.*expected a list of kernels; run: again"),
        ("from the future", "no list of kernels of schema 1"),
    ],
)
def test_what_is_damaged_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    build_kernels(tmp_path / "engine", [ORIN])
    damage(tmp_path / "engine", how)
    with pytest.raises(EdgeAdError, match=message):
        read_kernels(tmp_path / "engine", ORIN, "run: again")


def test_another_devices_kernels_are_refused(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    build_kernels(tmp_path / "engine", [ORIN])
    with pytest.raises(EdgeAdError, match=r"no kernel tiny for compute capability 11.0 \(built for 8.7\)"):
        read_kernels(tmp_path / "engine", (11, 0))


def test_a_spill_fails_the_build(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, monkeypatch, log=GOOD.replace("0 bytes spill stores", "16 bytes spill stores"))
    with pytest.raises(EdgeAdError, match=r"tiny.cu for sm_87: registers of fill \(16 bytes\) spill to memory"):
        build_kernels(tmp_path / "engine", [ORIN])
    assert not (tmp_path / "engine" / FOLDER / SIDECAR).exists()


def test_what_the_compiler_says_is_one_line(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, monkeypatch, log="nvcc fatal   : Unsupported gpu architecture 'compute_87'\n", code=1)
    with pytest.raises(
        EdgeAdError, match=r"nvcc 12.6.1 refused tiny.cu for sm_87: .*a CUDA toolkit that knows this GPU"
    ):
        compile_kernel("tiny", ORIN)
    fake_nvcc(tmp_path, monkeypatch, log="tiny.cu(3): error: identifier is undefined\n", code=1)
    with pytest.raises(EdgeAdError, match="identifier is undefined$"):
        compile_kernel("tiny", ORIN)


def test_an_engine_without_kernels_says_why(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    said: list[str] = []
    assert add_kernels(tmp_path / "portable", [], said.append) == []
    assert "a portable engine holds no CUDA kernels" in said.pop()
    assert len(add_kernels(tmp_path / "named", [ORIN], said.append)) == 1
    said.clear()
    assert add_kernels(tmp_path / "old", [(7, 2)], said.append) == []
    assert said == ["no CUDA kernels for compute capability 7.2 (8.0 is the least): no device pipeline there"]
    assert len(add_kernels(tmp_path / "both", [(7, 5), ORIN], said.append)) == 1
    with pytest.raises(EdgeAdError, match="^CUDA kernels for compute capability 7.5; expected 8.0 or newer$"):
        compile_kernel("tiny", (7, 5))
    monkeypatch.setattr(cuda_compiler, "find_nvcc", lambda: None)
    monkeypatch.setattr(cuda_compiler, "find_nvrtc", lambda: None)
    assert add_kernels(tmp_path / "without", [ORIN], said.append) == []
    assert "no nvcc or NVRTC here" in said[-1]


def test_without_a_compiler_the_error_names_both(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_compiler, "find_nvcc", lambda: None)
    monkeypatch.setattr(cuda_compiler, "find_nvrtc", lambda: None)
    assert cuda_compiler.compiler() is None
    with pytest.raises(EdgeAdError, match="no CUDA compiler here; expected nvcc or NVRTC; install the CUDA toolkit"):
        compile_kernel("tiny", ORIN)


def test_sources_and_their_kernels() -> None:
    assert {"depth", "preprocess", "compact", "order", "fps", "knn", "three_nn", "smooth", "regions"} <= set(
        kernels.names()
    )
    every = [entry for name in kernels.names() for entry in kernels.entries(name)]
    assert len(set(every)) == len(every), "two kernels of one name"
    assert kernels.source_of("farthest_points") == "fps"
    assert "#include" not in kernels.text("fps")
    assert "-fmad=false" in kernels.flags("fps")
    with pytest.raises(EdgeAdError, match="no kernel source 'nothing'"):
        kernels.text("nothing")
    with pytest.raises(EdgeAdError, match="no kernel 'nothing'"):
        kernels.source_of("nothing")


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="the package tensorrt_rtx is not installed")
def test_build_engine_stores_them_with_the_plans(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvcc(tmp_path, monkeypatch, log=GOOD)
    monkeypatch.setattr(cuda, "find_device", lambda: None)
    bundle = tiny_bundle(tmp_path / "tiny")
    build_engines(bundle, "tensorrt-rtx", compute_capability=("8.6",))
    folder = bundle.path / "engines/tensorrt-rtx-fp32-sm86"
    assert read_kernels(folder, (8, 6)) == {"tiny": b"cubin"}
    assert read_sidecar(folder).capabilities == ("8.6",)
    # A compiler that fails leaves no engine, not one without its kernels.
    fake_nvcc(tmp_path, monkeypatch, log="tiny.cu(3): error: no\n", code=1, version="13.0.0")
    with pytest.raises(EdgeAdError, match="refused tiny.cu for sm_89"):
        build_engines(bundle, "tensorrt-rtx", compute_capability=("8.9",))
    assert not (bundle.path / "engines/tensorrt-rtx-fp32-sm89").exists()


@needs_nvcc
@pytest.mark.parametrize("name", kernels.names())
def test_every_kernel_compiles_for_orin_without_spills(name: str) -> None:
    compiled = compile_kernel(name, ORIN)
    assert compiled.cubin[:4] == b"\x7fELF"
    assert {r.entry for r in compiled.resources} == set(kernels.entries(name))
    assert all(r.spill_bytes == 0 and r.registers <= 255 for r in compiled.resources)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_target(target: tuple[int, int]) -> None:
    for name in kernels.names():
        assert all(r.spill_bytes == 0 for r in compile_kernel(name, target).resources)


@pytest.mark.skipif(find_nvrtc() is None, reason="needs NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("name", kernels.names())
def test_nvrtc_compiles_the_same_text(name: str) -> None:
    compiled = compile_kernel(name, ORIN, "nvrtc", cache=False)
    assert compiled.cubin[:4] == b"\x7fELF"
    assert {r.entry for r in compiled.resources} == set(kernels.entries(name))


@pytest.mark.skipif(find_nvrtc() is None, reason="needs NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_nvrtc_compiles_every_kernel_for_every_target(target: tuple[int, int]) -> None:
    for name in kernels.names():
        assert all(r.spill_bytes == 0 for r in compile_kernel(name, target, "nvrtc", cache=False).resources)
