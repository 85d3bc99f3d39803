"""Presets: every size and choice of the method, named, in TOML files beside this module.

``load_preset("compact")`` reads a shipped preset, ``load_preset("my.toml")`` a file of the user's.
A file may start from another with ``extends = "compact"`` and name only what differs.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_ad.errors import EdgeAdError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
SHIPPED = Path(__file__).parent
STANDARDIZE = ("none", "channel", "whiten")


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

    CHOICES = {"kind": ("gacm", "cfm")}


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

    CHOICES = {
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
    def feature_rgb(self) -> int:
        """Size of a colour feature as the mappers see it: D_rgb, and one constant channel more with ``rgb.lift``."""
        return self.dim_rgb + (self.rgb.lift > 0)

    @property
    def feature_points(self) -> int:
        """Size of a point feature as the mappers see it: D_3d, and one constant channel more with ``points.lift``."""
        return self.dim_points + (self.points.lift > 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON/TOML types; :func:`preset_from_dict` reads it back."""
        return {k: (_plain(v) if dataclasses.is_dataclass(v) else v) for k, v in self.__dict__.items()}


EFFICIENTNET_LITE0_CHANNELS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)


def _plain(section: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in section.__dict__.items()}


def _section(cls: type[T], where: str, values: Any) -> T:
    if not isinstance(values, dict):
        raise EdgeAdError(f"{where} is {values!r}", "a table of fields")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise EdgeAdError(f"{where}: unknown field {', '.join(unknown)}", f"one of {', '.join(fields)}")
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
    missing = [n for n in required if n not in values]
    if missing:
        raise EdgeAdError(f"{where}: missing field {', '.join(missing)}")
    clean: dict[str, Any] = {}
    for name, value in values.items():
        kind = str(fields[name].type)
        clean[name] = _coerce(f"{where}.{name}", kind, value)
        choices = getattr(cls, "CHOICES", {}).get(name)
        if choices and clean[name] not in choices:
            raise EdgeAdError(f"{where}.{name} is {value!r}", f"one of {', '.join(choices)}")
    return cls(**clean)


def _coerce(where: str, kind: str, value: Any) -> Any:
    ok: bool
    if kind == "bool":
        ok = isinstance(value, bool)
    elif kind == "int":
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "float":
        ok = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if ok else value
    elif kind.startswith("tuple"):
        ok = isinstance(value, (list, tuple))
        element = kind.removeprefix("tuple[").partition(",")[0]
        value = tuple(_coerce(where, element, v) for v in value) if ok else value
    else:
        ok = isinstance(value, str)
    if not ok:
        raise EdgeAdError(f"preset field {where} is {value!r}", f"a value of type {kind}")
    return value


def preset_from_dict(values: dict[str, Any], where: str = "preset") -> Preset:
    """Build and validate a preset from plain tables."""
    sections: dict[str, Any] = {
        "geometry": Geometry,
        "rgb": Rgb,
        "points": Points,
        "text": Text,
        "mappers": Mappers,
        "octa": Octa,
        "fusion": Fusion,
        "limits": Limits,
        "training": Training,
    }
    unknown = sorted(set(values) - set(sections) - {"name"})
    if unknown:
        raise EdgeAdError(f"{where}: unknown table {', '.join(unknown)}", f"one of {', '.join(sections)}")
    missing = [s for s in sections if s not in values]
    if missing:
        raise EdgeAdError(
            f"{where}: missing table {', '.join(missing)}", "", 'start from another with extends = "compact"'
        )
    built = {n: _section(cls, f"{where}: {n}", values[n]) for n, cls in sections.items()}
    return Preset(name=str(values.get("name", "custom")), **built)


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise EdgeAdError(f"{path} extends itself", "a chain of presets that ends")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise EdgeAdError(f"{path} is not TOML ({e})") from None
    base_name = values.pop("extends", None)
    if base_name is None:
        return values
    base = _read(_locate(str(base_name)), (*seen, path.resolve()))
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = {**base[key], **value}
        else:
            base[key] = value
    return base


def _locate(name_or_path: str) -> Path:
    shipped = SHIPPED / f"{name_or_path}.toml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
    raise EdgeAdError(f"no preset '{name_or_path}'", f"one of {names}, or a .toml file")


def load_preset(name_or_path: str) -> Preset:
    """Read a shipped preset by name or a preset file by path.

    Raises
    ------
    EdgeAdError
        No such preset, not TOML, or a field that is unknown, missing or of the wrong type.
    """
    path = _locate(name_or_path)
    return preset_from_dict(_read(path), where=path.name)
