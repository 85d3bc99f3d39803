"""The tables of a preset, their fields and what each may hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

STANDARDIZE = ("none", "channel", "whiten")
CODE = 8
"""Constant channels that tell a class (``mappers.condition = "class"``)."""
EFFICIENTNET_LITE0_CHANNELS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)
"""Channels after each block of the encoder."""


@dataclass(frozen=True)
class Geometry:
    """From the camera's pixels to the sample grid (METHOD section 1)."""

    size: int
    crop: str
    background: str
    plane_distance_m: float
    ransac_iterations: int
    border_share: float
    cluster_min_area: float
    max_depth_m: float
    pose: str

    CHOICES = {"crop": ("image", "roi", "part"), "background": ("plane", "none"), "pose": ("free", "fixed")}


@dataclass(frozen=True)
class Rgb:
    """The frozen colour encoder. ``dim``/``depth``/``heads``/``patch_size``/``blocks`` are for ``dino-vit``."""

    encoder: str
    checkpoint: str
    grid: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    standardize: str
    ridge: float
    lift: float
    taps: tuple[int, ...] = ()
    patch_size: int = 8
    dim: int = 768
    depth: int = 12
    heads: int = 12
    blocks: int = 0
    residual_ridge: float = 1e-2

    CHOICES = {"encoder": ("dino-vit", "efficientnet-lite0"), "standardize": (*STANDARDIZE, "residual")}


@dataclass(frozen=True)
class Points:
    """The frozen point encoder (Point-MAE)."""

    encoder: str
    checkpoint: str
    groups: int
    group_size: int
    stride: int
    pool: int
    dim: int
    depth: int
    heads: int
    taps: tuple[int, ...]
    widths: tuple[int, ...]
    normalize: str
    standardize: str
    ridge: float
    lift: float

    CHOICES = {
        "encoder": ("point-mae",),
        "normalize": ("none", "unit-sphere", "fixed"),
        "standardize": STANDARDIZE,
    }


@dataclass(frozen=True)
class Text:
    """The text encoder that embeds the prompts of METHOD section 4."""

    encoder: str
    checkpoint: str
    dim: int

    CHOICES = {"encoder": ("clip", "minilm", "none")}


@dataclass(frozen=True)
class Mappers:
    """The trained mappers (METHOD section 3)."""

    kind: str
    hidden: int
    condition: str = "none"

    CHOICES = {"kind": ("gacm", "cfm"), "condition": ("none", "class")}


@dataclass(frozen=True)
class Octa:
    """The text feature adaptor (METHOD section 4)."""

    anchors: str
    experts: int
    top_k: int
    hidden_ratio: int
    dropout: float

    CHOICES = {"anchors": ("learned", "frozen")}


@dataclass(frozen=True)
class Fusion:
    """From distances to the anomaly map and score (METHOD section 6)."""

    alpha: float
    beta: float
    balance: str
    smoothing: str
    smooth_over: str
    sigma: float
    score: str
    min_region_px: int
    level: str = "none"
    level_hidden: int = 64
    combine: str = "product"
    rim: int = 0
    spread: int = 0

    CHOICES = {
        "combine": ("product", "max"),
        "level": ("none", "predicted"),
        "balance": ("none", "train-mean"),
        "smoothing": ("box-cascade", "gaussian", "none"),
        "smooth_over": ("image", "valid"),
        "score": ("max", "max-over-rms"),
    }


@dataclass(frozen=True)
class Limits:
    """What never passes as normal."""

    lost_share: float
    min_valid: int


@dataclass(frozen=True)
class Training:
    """How the mappers are fitted (METHOD section 5)."""

    epochs: int
    pixels_per_step: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Preset:
    """One complete configuration."""

    name: str
    geometry: Geometry
    rgb: Rgb
    points: Points
    text: Text
    mappers: Mappers
    octa: Octa
    fusion: Fusion
    limits: Limits
    training: Training

    @property
    def dim_rgb(self) -> int:
        """D_rgb: channels of a colour token."""
        if self.rgb.encoder == "dino-vit":
            return self.rgb.dim
        return sum(EFFICIENTNET_LITE0_CHANNELS[t] for t in self.rgb.taps)

    @property
    def dim_points(self) -> int:
        """D_3d: channels of a point token."""
        return len(self.points.taps) * self.points.dim

    @property
    def constants(self) -> int:
        """Constant channels of a lifted feature: one, or a code of the class."""
        return CODE if self.mappers.condition == "class" else 1

    @property
    def feature_rgb(self) -> int:
        """Size of a colour feature as the mappers see it: D_rgb, and with ``rgb.lift`` the constant channels."""
        return self.dim_rgb + (self.constants if self.rgb.lift > 0 else 0)

    @property
    def feature_points(self) -> int:
        """Size of a point feature as the mappers see it: D_3d, and with ``points.lift`` the constant channels."""
        return self.dim_points + (self.constants if self.points.lift > 0 else 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON/TOML types; :func:`preset_from_dict` reads it back."""
        return {k: (_plain(v) if dataclasses.is_dataclass(v) else v) for k, v in self.__dict__.items()}


def _plain(section: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in section.__dict__.items()}
