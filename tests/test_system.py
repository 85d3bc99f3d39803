"""What the system says about itself."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edge_ad import system


def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"a\xff")
    assert system.told_by(tmp_path / "odd") == "a\N{REPLACEMENT CHARACTER}"
    assert system.told_by(tmp_path / "none") == system.told_by(tmp_path) == ""


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some Processor \n\nmodel name\t: Other\n", "Some Processor"),
        ("processor\t: 0\nBogoMIPS\t: 62.50\n\nModel\t\t: Some Board\n", "Some Board"),
        ("", platform.processor() or platform.machine()),
    ],
)
def test_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(system, "CPUINFO", tmp_path / "cpuinfo")
    assert system.processor_name() == name
