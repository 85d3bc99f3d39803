"""A source that is refused: the one line that says why."""

from __future__ import annotations

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.sensors import open_camera


def refused(uri: str) -> str:
    """The error of opening ``uri`` and reading it to its end, which must come and be one line."""
    with pytest.raises(EdgeAdError) as e, open_camera(uri) as camera:
        list(camera)
    assert "\n" not in str(e.value)
    return str(e.value)
