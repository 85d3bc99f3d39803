"""Frames through the GPU: from the camera's images to the map without a copy to the host between the stages."""

from __future__ import annotations
