"""What git tracks speaks of the product: no file names a folder of the machine that it was made on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Folders of one machine or one user. /dev, /usr, /etc, /proc and the like are the same everywhere.
OWN = re.compile(rb"(?<![\w.~*)\]}/-])/(?:tmp|work|home|root|Users|var/folders|mnt|private)/[\w.]")


def tracked() -> list[Path]:
    """Files that git tracks; skips where there is no git or no checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the files here: {listed.stderr.decode(errors='replace').strip()}")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def own_paths(content: bytes) -> list[str]:
    """Lines of a text that name such a folder; a file with a NUL byte is no text."""
    if b"\0" in content:
        return []
    return [line.decode(errors="replace")[:200] for line in content.splitlines() if OWN.search(line)]


def test_no_tracked_text_names_a_folder_of_one_machine() -> None:
    found = {p.relative_to(ROOT).as_posix(): own_paths(p.read_bytes()) for p in tracked()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("folder", ["tmp", "work", "home", "root"])
def test_the_search_finds_a_path_in_json_in_options_and_in_an_address(folder: str) -> None:
    path = f"/{folder}/x"
    for text in (f'"target": "{path}/bundle"', f"options --bundle {path}", f"state={path}.json", f"[a]({path})"):
        assert own_paths(text.encode()) == [text]
    allowed = (
        f"./{folder}/x",
        f"shared/{folder}/x",
        f"https://site/{folder}/x",
        f"{{parts}}/{folder}/x",
        "/dev/video0",
    )
    assert own_paths("\n".join(allowed).encode()) == []
