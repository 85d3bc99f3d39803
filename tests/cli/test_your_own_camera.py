"""docs/your-own-camera.md, walked through with librealsense's software device: from an empty folder to masks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad.cli.main import main
from edge_ad.data.images import read_mask

PAGE = Path(__file__).parents[2] / "docs/your-own-camera.md"
BELT = "belt:hex_nut?fps=10%26speed=600%26stop=0.5"
# Less than the page's numbers, so that the walk takes minutes; the commands are the page's.
SMALLER = ("--set", "points.groups=96", "--min-steps", 40, "--epochs", 1)


def edge_ad(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done


def camera(more):
    return f"realsense:simulated?feed={BELT}%26{more}"


def test_every_command_of_the_page_is_one_that_exists():
    from click import Context

    text = PAGE.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
    commands = [line.partition("#")[0].split() for line in lines if line.startswith("edge-ad ")]
    seen = []
    for words in commands:
        command = main.get_command(Context(main), words[1])
        assert command is not None, words
        if hasattr(command, "get_command"):
            command = command.get_command(Context(command), words[2])
        options = {name for parameter in command.params for name in parameter.opts}
        assert [w for w in words if w.startswith("--") and w not in options] == [], words
        seen.append(words[1])
    order = ["cameras", "calibrate", "record", "fit", "export", "calibrate", "build-engine", "run"]
    assert [c for i, c in enumerate(seen) if i == 0 or seen[i - 1] != c] == order


@pytest.mark.slow
def test_from_an_empty_folder_to_masks(tmp_path, monkeypatch):
    pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed (extra 'realsense')")
    monkeypatch.chdir(tmp_path)
    still = "realsense:simulated?feed=belt:hex_nut?parts=1%26stop=20%26fps=10%26speed=10000"
    scene = json.loads(edge_ad("calibrate", "scene", "recordings", "--camera", still, "--frames", 20, "--json").stdout)
    assert Path("recordings/scene.png").is_file() and scene
    place = ("--out", "recordings", "--class", "hex nut", "--trigger", "part")
    good = "defects=0%26parts=0%26seed="
    edge_ad("record", "--camera", camera(good + "1"), *place, "--frames", 14)
    edge_ad("record", "--camera", camera(good + "2"), *place, "--frames", 12, "--split", "validation")
    bad = camera("defects=1%26parts=0%26seed=3")
    edge_ad("record", "--camera", bad, *place, "--frames", 4, "--label", "spoilt")
    edge_ad("fit", "--data", "recordings", "--out", "model", "--augment", 2, *SMALLER)
    edge_ad("export", "model", "bundle", "--data", "recordings", "--golden", 2)
    edge_ad("calibrate", "thresholds", "bundle", "--data", "recordings", "--false-reject-rate", 0.1)
    edge_ad("build-engine", "bundle")
    run = ("run", "bundle", "--class", "hex nut", "--trigger", "part", "--output", "folder:results")
    lines = edge_ad(*run, "--camera", camera("defects=0.5%26seed=5%26parts=6")).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 6 and all(r["health"] == "ok" and r["decision"] != "invalid" for r in results), results
    for result in results:
        mask = read_mask(Path("results/mask") / f"{result['name']}.png")
        assert mask.shape == (320, 320) and mask.any() == any(r["kind"] == "anomaly" for r in result["regions"])
    # The camera's identity went all the way into the bundle.
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert "SIMULATED" in json.dumps(manifest["provenance"])
    # A camera that was moved is told: 80 mm further back nothing is normal.
    scores = [r["score"] for r in results]
    assert np.isfinite(scores).all()
