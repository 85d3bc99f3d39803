"""Every kernel's tests again, in processes of their own: under the sanitizers, and watched for races."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.emulate import MODE, needs_compiler, sanitized_environment

ROOT = Path(__file__).parents[2]
FILES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / "tests/runtime/kernels").glob("test_*.py")
    if "tests.emulator" in p.read_text(encoding="utf-8")
)

# The large clouds take the address builds half a minute and the race builds longer, and add no other access.
SMALL = ("-k", "not golden and not 50176 and not 224")

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(os.environ.get(MODE, "") != "", reason="runs under the sanitizers already"),
]


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    environment = sanitized_environment()
    if environment is None:
        pytest.skip("g++ has no libasan (apt install libasan8)")
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )


@pytest.mark.parametrize("file", ["tests/emulator/test_emulator.py", *FILES])
def test_kernels_run_clean(file: str) -> None:
    done = sanitized("-m", "pytest", file, "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *SMALL)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert " passed" in done.stdout


@pytest.mark.parametrize("file", FILES)
def test_kernels_have_no_race(file: str) -> None:
    """Every access goes through a book of who used the place last."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", file, "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *SMALL],
        cwd=ROOT,
        env=os.environ | {MODE: "race"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert " passed" in done.stdout


FAULT = """
import sys
import numpy as np
from tests.emulator.emulate import emulate
kernels = emulate("tests/emulator/faulty.cu")
{code}
print("nobody noticed")
"""
CASES = {
    "a write beyond a buffer": (
        "kernels.write_at[1, 32](np.zeros(32, np.float32), 32)",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "a write before a buffer": (
        "kernels.write_at[1, 32](np.zeros(32, np.float32), -1)",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "beyond dynamic shared memory": (
        "kernels.shared_at[1, 32, 128](np.zeros(32, np.float32), 1)",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "beyond static shared memory": (
        "kernels.static_shared_at[1, 32](np.zeros(32, np.float32), 1)",
        "index 32 out of bounds",
    ),
    "signed overflow": (
        "kernels.signed_overflow[1, 32](np.full(32, 2**31 - 1, np.int32), 1)",
        "signed integer overflow",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sanitizers_see_faults(case: str) -> None:
    code, message = CASES[case]
    done = sanitized("-c", FAULT.format(code=code))
    assert done.returncode != 0 and "nobody noticed" not in done.stdout
    assert message in done.stderr, done.stderr[-2000:]
