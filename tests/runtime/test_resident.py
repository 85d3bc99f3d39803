"""Freed blocks go back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_ad.runtime.resident import clean_spans

CODE = """
import sys
from edge_ad.runtime.resident import give_back_large_blocks
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
if sys.argv[1] == "yes":
    assert give_back_large_blocks()
# A large block that is freed raises glibc's threshold; what is freed below it, under a block in use, then stays.
del_me = np.ones(30_000_000 // 8); del del_me
before = resident()
blocks = [np.ones(4_000_000 // 8) for _ in range(50)]
held = np.ones(1000)
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_blocks_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, "yes"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10


SMAPS = """\
7f00-7f10 r-xp 00000000 fe:00 12                         /lib/code.so
Size:                 64 kB
Rss:                  64 kB
Anonymous:             0 kB
7f10-7f20 r--p 00010000 fe:00 12                         /lib/code.so
Rss:                  64 kB
Anonymous:            16 kB
7f20-7f28 r--p 00020000 fe:00 12                         /lib/with a space.so
Anonymous:             0 kB
7f28-7f30 rw-p 00028000 fe:00 12                         /lib/code.so
Anonymous:             0 kB
7f30-7f38 r--s 00000000 fe:00 13                         /shared
Anonymous:             0 kB
7f38-7f40 r--p 00000000 00:00 0
Anonymous:             0 kB
7f40-7f48 ---p 00000000 fe:00 12                         /lib/code.so
Anonymous:             0 kB
"""


def test_only_clean_private_mappings_of_files_are_let_go(tmp_path: Path) -> None:
    (tmp_path / "smaps").write_text(SMAPS)
    assert clean_spans(tmp_path / "smaps") == [(0x7F00, 0x7F10), (0x7F20, 0x7F28)]
    assert clean_spans(tmp_path / "absent") == []


SETTLE = """
import numpy as np
from edge_ad.runtime import jit
from edge_ad.runtime.point_means import mean_point
from edge_ad.runtime.resident import settle
import sys
assert "scipy.linalg" not in sys.modules
points = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
mean = mean_point(points)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before = resident()
settle()
after = resident()
# All of it still works: compiled code, the compiler, and what of SciPy is imported later.
assert (mean_point(points) == mean).all()
jit.numba.njit(lambda a: a + 1)(1)
from scipy.linalg import blas, cython_blas
import scipy.linalg.cython_blas as same
assert same is cython_blas and blas.sgemm(1, np.eye(2), np.eye(2)).sum() == 2
print(before - after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator and /proc")
def test_what_only_getting_ready_needed_is_let_go_and_all_still_works() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 20
