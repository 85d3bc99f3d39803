"""The file that touches the driver: its refusals here, and every call of it through the real PyCUDA.

PyCUDA has no wheels; the slow test builds it once against ``tests/gpu/cuda_on_host`` (a ``libcuda.so.1`` whose device
memory is host memory) and runs the GPU tests with it. Without a GPU that is as near as it gets: contexts, packed
arguments, events, graphs and the kernels are real, their time and the hardware's order of threads are not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.runtime import cuda, driver
from tests.emulator.emulate import needs_compiler

SOURCES = Path(__file__).parents[1] / "gpu/cuda_on_host"
ROOT = Path(__file__).parents[2]


def build_library(folder: Path, device: bool) -> Path:
    """libcuda.so.1: with a device on the host, or one that answers "no device" to everything."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = [folder / "calls.o", folder / "host.o"]
    subprocess.run(["gcc", "-w", "-c", "-fPIC", "-o", objects[0], SOURCES / "calls.c"], check=True)
    source = SOURCES / "cuda_on_host.cpp"
    if device:
        subprocess.run(["g++", "-w", "-std=c++17", "-O1", "-c", "-fPIC", "-o", objects[1], source], check=True)
    out = folder / "libcuda.so.1"
    given = objects if device else objects[:1]
    subprocess.run(["g++", "-shared", "-Wl,-soname,libcuda.so.1", "-o", out, *given, "-ldl"], check=True)
    link = folder / "libcuda.so"
    link.unlink(missing_ok=True)
    link.symlink_to(out.name)
    return folder


def run(libraries: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python with that libcuda."""
    env = os.environ | {"LD_LIBRARY_PATH": str(libraries), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def test_without_a_device_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "library", lambda: None)
    with pytest.raises(EdgeAdError, match="^no CUDA device: the device pipeline needs an NVIDIA GPU") as e:
        driver.PyCudaDriver()
    assert "\n" not in str(e.value)


def test_without_pycuda_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("GPU", (8, 7), 8 << 30))
    monkeypatch.setitem(sys.modules, "pycuda", types.ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EdgeAdError, match=r"edge-ad\[cuda\]"):
        driver.PyCudaDriver()


@needs_compiler
@pytest.mark.parametrize("device", [False, True])
def test_the_driver_is_found_or_said_to_be_missing(device: bool, tmp_path: Path) -> None:
    """In a process of its own, whose libcuda is the one on the host."""
    libraries = build_library(tmp_path, device)
    done = run(libraries, "-c", "from edge_ad.runtime.cuda import find_device; print(find_device())")
    wanted = "Device(name='CUDA on the host', compute_capability=(8, 7), memory_bytes=4294967296)" if device else "None"
    assert done.stdout.strip() == wanted, done.stderr


@needs_compiler
def test_arguments_are_packed_as_kernels_take_them() -> None:
    import numpy as np

    found = [driver._argument(v) for v in (None, 3, 2.5, np.int64(1 << 40), np.float64(0.1))]
    assert found == [("P", 0), ("i", 3), ("f", 2.5), ("q", 1 << 40), ("d", 0.1)]
    with pytest.raises(EdgeAdError, match="without a device address"):
        driver._argument(types.SimpleNamespace(address=0))  # type: ignore[arg-type]


def toolkit(nvcc: str) -> Path:
    """Where a compiler has its headers; it may be a wrapper in another folder."""
    told = subprocess.run([nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True).stderr
    (top,) = [line.removeprefix("#$ TOP=") for line in told.splitlines() if line.startswith("#$ TOP=")]
    return Path(top).resolve()


def pycuda_built(folder: Path) -> Path:
    """A folder with PyCUDA built against the host's libcuda; kept between runs by what it is made of."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("PyCUDA compiles against the CUDA toolkit, and there is no nvcc")
    site = folder / "site"
    if (site / "pycuda/driver.py").exists():
        return site
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = folder / "source"
    for left in (source, folder / "draft"):
        shutil.rmtree(left, ignore_errors=True)  # of a build that did not end
    done = subprocess.run([*pip, "download", "--no-deps", "--no-binary", "pycuda", "--dest", folder, "pycuda==2026.1"],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        pytest.skip(f"PyCUDA's source cannot be had: {done.stderr.strip().splitlines()[-1]}")
    shutil.unpack_archive(folder / "pycuda-2026.1.tar.gz", source)
    subprocess.run([sys.executable, "configure.py", f"--cuda-root={toolkit(nvcc)}",
                    "--no-cuda-enable-curand", f"--cudadrv-lib-dir={folder / 'lib'}"],
                   cwd=source / "pycuda-2026.1", check=True, capture_output=True)  # fmt: skip
    target = ["--target", folder / "draft", "--no-build-isolation", source / "pycuda-2026.1"]
    done = subprocess.run([*pip, "install", *target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "draft").rename(site)
    return site


@pytest.mark.slow
@needs_compiler
def test_the_gpu_tests_pass_through_the_real_pycuda(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile

    kept = Path(tempfile.gettempdir()) / f"edge-ad-pycuda-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    libraries = build_library(kept / "lib", device=True)
    none = build_library(tmp_path_factory.mktemp("none"), device=False)
    site = pycuda_built(kept)
    path = os.pathsep.join([str(site), *sys.path])
    done = run(none, "-c", "import pycuda.driver as d\ntry: d.init()\nexcept d.Error as e: print(e)", PYTHONPATH=path)
    assert "NO_DEVICE" in done.stdout, done.stderr
    # The large clouds take a minute each; the emulator's own slow tests run them.
    for integrated, chosen in (("0", "not large_clouds"), ("1", "same_results")):
        done = run(
            libraries, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-k", chosen,
            PYTHONPATH=path, EDGE_AD_CUDA_ON_HOST="1", CUDA_ON_HOST_INTEGRATED=integrated,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert "passed" in done.stdout
