"""``edge-ad fit`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli.fit import command, override
from edge_ad.errors import EdgeAdError
from edge_ad.presets import load_preset
from tests.disk import write_recordings
from tests.training.tiny import tiny_preset


def write_preset(path: Path) -> None:
    """The tiny preset as TOML."""

    def toml(value: object) -> str:
        return json.dumps(value) if not isinstance(value, bool) else str(value).lower()

    lines = []
    for table, fields in tiny_preset().to_dict().items():
        if isinstance(fields, dict):
            lines += [f"[{table}]", *(f"{k} = {toml(v)}" for k, v in fields.items())]
    path.write_text('name = "tiny"\n' + "\n".join(lines) + "\n")


def options(folder: Path, class_name: str, steps: int) -> list[str]:
    """Options of ``fit`` on recordings and the tiny preset, both written here; the model goes to ``folder/model``."""
    write_recordings(folder / "data", 5)
    write_preset(folder / "tiny.toml")
    files = ["--data", folder / "data", "--out", folder / "model", "--preset", folder / "tiny.toml"]
    return [*map(str, files), "--class-name", class_name, "--min-steps", str(steps), "--jobs", "1", "--threads", "1"]


def test_fit_a_folder_of_recordings(tmp_path: Path) -> None:
    arguments = [*options(tmp_path, "bottle cap", 8), "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["classes"] == ["bottle cap"]
    assert document["training_samples"] == {"bottle cap": 4}
    assert document["held_out_samples"] == 1
    assert "fit" in result.stderr and "8/8" in result.stderr
    description = json.loads((tmp_path / "model/model.json").read_text())
    assert description["classes"] == [{"name": "bottle cap", "prompt": "bottle cap"}]
    assert (tmp_path / "model.cache").is_dir()

    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 1
    assert again.stderr.startswith("error: ")
    assert "exists already" in again.stderr
    assert CliRunner().invoke(command, [*arguments, "--force"]).exit_code == 0


def test_overrides() -> None:
    preset = override(
        load_preset("compact"),
        ("geometry.crop=roi", "fusion.beta=0.25", "rgb.taps=[2, 4]", "rgb.standardize=none", 'text.encoder="none"'),
    )
    assert preset.geometry.crop == "roi"
    assert preset.fusion.beta == 0.25
    assert preset.rgb.taps == (2, 4)
    assert preset.rgb.standardize == "none"
    assert preset.text.encoder == "none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("geometry.crop", "TABLE.FIELD=VALUE"),
        ("crop=roi", "TABLE.FIELD=VALUE"),
        ("nothing.crop=roi", "no table 'nothing'"),
        ("geometry.nothing=1", "unknown field nothing"),
        ("geometry.crop=circle", "one of image, roi, part"),
        ("training.epochs=many", "a value of type int"),
    ],
)
def test_a_bad_override_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(EdgeAdError, match=message):
        override(load_preset("compact"), (text,))


def test_variants_are_fitted_beside_the_model_and_exported_with_it(tmp_path: Path) -> None:
    from edge_ad.bundle import Bundle
    from edge_ad.cli.main import main

    common = options(tmp_path, "cookie", 4)
    for text, says in (
        ("light: groups=24", "variant light is the preset itself"),
        ("base: groups=12", "a variant named 'base'"),
        ("light: speed=9", "unknown dial 'speed'"),
    ):
        refused = CliRunner().invoke(main, ["fit", *common, "--variants", text])
        assert refused.exit_code == 1 and says in refused.stderr and not (tmp_path / "model").exists()
    done = CliRunner().invoke(main, ["fit", *common, "--variants", "light: groups=12; short: layers=1", "--json"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert {n: v["changes"] for n, v in document["variants"].items()} == {"light": "groups=12", "short": "layers=1"}
    assert (tmp_path / "model/variants/light/model.json").is_file()
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "bundle"), "--data", str(tmp_path / "data")]
    exported = CliRunner().invoke(main, [*arguments, "--golden", "1", "--json"])
    assert exported.exit_code == 0, exported.stderr
    assert json.loads(exported.stdout)["variants"] == ["base", "light", "short"]
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.variants["short"].changes == "layers=1"
    assert bundle.as_variant("short").preset.points.taps == (0,)
