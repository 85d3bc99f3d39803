"""Shipped presets, files of the user's, and every wrong field in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.presets import SHIPPED, load_preset, preset_from_dict

NAMES = sorted(p.stem for p in SHIPPED.glob("*.toml"))


def test_the_shipped_presets() -> None:
    assert {"cfm", "compact", "paper"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_survives_its_dictionary_and_json(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset_from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


def test_paper_has_the_sizes_of_the_paper() -> None:
    p = load_preset("paper")
    assert (p.geometry.size, p.rgb.grid, p.rgb.grid**2) == (224, 28, 784)
    assert (p.points.groups, p.points.group_size) == (1024, 32)
    assert (p.dim_rgb, p.dim_points, p.text.dim) == (768, 1152, 512)
    assert (p.fusion.alpha, p.fusion.beta) == (0.5, 0.5)


def test_cfm_is_the_paper_without_text() -> None:
    paper, cfm = load_preset("paper"), load_preset("cfm")
    assert cfm.mappers.kind == "cfm" and cfm.text.encoder == "none"
    assert (cfm.rgb.dim, cfm.points.groups) == (paper.rgb.dim, paper.points.groups)
    assert cfm.fusion.smoothing == "box-cascade"


def test_compact_needs_no_file_of_the_users() -> None:
    p = load_preset("compact")
    assert {p.rgb.checkpoint, p.points.checkpoint, p.text.checkpoint} == {"package"}
    assert (p.dim_rgb, p.dim_points) == (24 + 40 + 112, 3 * 96)


def test_a_file_that_extends_a_shipped_one_names_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nextends = "compact"\n[points]\ngroups = 64\n')
    mine, compact = load_preset(str(path)), load_preset("compact")
    assert mine.name == "mine" and mine.points.groups == 64
    assert mine.points.group_size == compact.points.group_size and mine.geometry == compact.geometry


def changed(table: str, field: str, value: Any) -> dict[str, Any]:
    values = load_preset("compact").to_dict()
    values[table][field] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed("points", "groups", "many"), "points.groups is 'many'; expected a value of type int"),
        (changed("points", "groups", True), "a value of type int"),
        (changed("fusion", "alpha", "a"), "a value of type float"),
        (changed("rgb", "taps", 3), "rgb.taps is 3"),
        (changed("rgb", "taps", [2, "four"]), "rgb.taps is 'four'; expected a value of type int"),
        (changed("geometry", "crop", "circle"), "expected one of image, roi, part"),
        (changed("geometry", "sise", 3), "unknown field sise"),
        (changed("rgb", "checkpoint", None), "rgb.checkpoint is None"),
        ({**load_preset("compact").to_dict(), "more": {}}, "unknown table more"),
        ({**load_preset("compact").to_dict(), "rgb": 3}, "a table of fields"),
        ({k: v for k, v in load_preset("compact").to_dict().items() if k != "octa"}, "missing table octa"),
    ],
)
def test_a_wrong_field_is_one_clear_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeAdError) as e:
        preset_from_dict(values)
    assert message in str(e.value)


def test_a_whole_number_is_a_float() -> None:
    assert preset_from_dict(changed("fusion", "alpha", 1)).fusion.alpha == 1.0


def test_a_missing_field_is_named() -> None:
    values = load_preset("compact").to_dict()
    del values["fusion"]["sigma"]
    with pytest.raises(EdgeAdError, match="fusion: missing field sigma"):
        preset_from_dict(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"one of cfm, compact,.* paper, or a .toml file"),
        (b"[", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b'extends = "nothing"\n', "no preset 'nothing'"),
        (b'extends = "loop.toml"\n', "extends itself"),
    ],
)
def test_a_file_that_is_no_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "loop.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeAdError, match=message):
        load_preset("loop.toml")


def test_a_class_s_code_needs_constant_channels() -> None:
    with pytest.raises(EdgeAdError, match="constant channels"):
        preset_from_dict(changed("points", "lift", 0.0))


@pytest.mark.parametrize("field", ["rim", "spread"])
def test_a_border_is_for_a_mean_over_valid_pixels(field: str) -> None:
    with pytest.raises(EdgeAdError, match=f"fusion.{field} is -1"):
        preset_from_dict(changed("fusion", field, -1))
    values = changed("fusion", "smooth_over", "image")
    values["fusion"] |= {"rim": 0, "spread": 0, field: 3}
    with pytest.raises(EdgeAdError, match='smooth_over = "valid"'):
        preset_from_dict(values)
