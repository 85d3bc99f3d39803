"""Where the reference data lies, and the mark that skips a test where it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"reference data is absent: no folder {SHARED}")
