"""What ``scripts/gpu_*.sh`` say without a GPU and for wrong arguments: one line, exit code 1, nothing made."""

from __future__ import annotations

import os
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


def test_a_folder_without_the_wheels_is_one_line(tmp_path: Path) -> None:
    """With a device, g++ and nvcc that are there: the check of the folder comes before anything is made."""
    text = (SCRIPTS / "gpu_check.sh").read_text(encoding="utf-8").replace("/dev/nvidia[0-9]*", "/dev/null")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/gpu_check.sh").write_text(text, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "wheels").mkdir()
    for name in ("nvcc", "g++"):
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    done = subprocess.run(
        ["bash", tmp_path / "scripts/gpu_check.sh", "--wheels", tmp_path / "wheels"],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "not a folder that scripts/gpu_wheels.sh made" in done.stderr
    assert not (tmp_path / ".venv-gpu").exists() and not (tmp_path / "gpu-report").exists()
