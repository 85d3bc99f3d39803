"""What the tests of engines share."""

from __future__ import annotations

import pytest

from edge_ad.engines import build


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds without compiling the CUDA kernels, which takes seconds where there is a compiler; they have tests of
    their own."""
    monkeypatch.setattr(build, "add_kernels", lambda *args, **kwargs: None)
