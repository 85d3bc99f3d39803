"""A copy of the tiny bundle to calibrate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_ad.bundle import Bundle


@pytest.fixture
def bundle(tiny_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")
