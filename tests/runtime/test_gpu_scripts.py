"""What ``scripts/gpu_*.sh`` say without a GPU and for wrong arguments: one line, exit code 1, nothing made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("gpu_check.sh", ["--wheels"], "--wheels needs a folder"),
        ("gpu_check.sh", ["--bundle", "nowhere"], "--bundle nowhere: no such folder"),
        ("gpu_check.sh", ["--quick"], "unknown option '--quick'"),
        ("gpu_wheels.sh", [], "no folder for the wheels"),
        ("gpu_wheels.sh", ["--quick"], "unknown option '--quick'"),
        ("gpu_wheels.sh", ["wheels", "cuda"], "backend 'cuda'"),
    ],
)
def test_wrong_arguments_are_one_line(script: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", SCRIPTS / script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["gpu_check.sh", "gpu_wheels.sh"])
def test_help_makes_nothing(script: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", SCRIPTS / script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and f"scripts/{script}" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("node", ["nvidia0", "nvhost-gpu", "nvgpu", ""])
def test_any_one_device_node_is_enough(node: str, tmp_path: Path) -> None:
    """The check itself, on a folder in the place of /dev."""
    text = (SCRIPTS / "gpu_check.sh").read_text(encoding="utf-8")
    check = text[text.index("seen=0") : text.index("command -v g++")].replace("/dev/", f"{tmp_path}/")
    if node:
        (tmp_path / node).touch()
    done = subprocess.run(["bash", "-c", f'fail() {{ echo "error: $1" >&2; exit 1; }}\n{check}'], capture_output=True)
    assert done.returncode == (0 if node else 1)
