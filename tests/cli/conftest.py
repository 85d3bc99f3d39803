"""One bundle and one model for all tests of bad input; a folder for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.place import Place
from tests.disk import copy_with_limits, write_parts


@pytest.fixture(scope="module")
def shared(tiny_model: Path, tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("faults")
    ready = copy_with_limits(tiny_export, folder / "ready", 1e6)
    return Place(folder, ready, tiny_export, tiny_model, write_parts(folder / "data", validation=3))


@pytest.fixture
def place(shared: Place, tmp_path: Path) -> Place:
    return Place(tmp_path, shared.ready, shared.bare, shared.model, shared.data)
