"""One small bundle for all tests, and a copy of it to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_ad.bundle import Bundle, open_bundle
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bundle(master: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(master.path, tmp_path / "tiny")
    return open_bundle(tmp_path / "tiny")
