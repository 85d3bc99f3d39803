"""The calibration table: readable, and the same after a round trip."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from edge_ad.calibration.int8.histogram import Histogram
from edge_ad.calibration.int8.observe import check_table, make_table
from edge_ad.calibration.int8.table import CalibrationTable, Row, parse_table, read_table
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.shared import share_standardisation
from tests.export.precision.models import by_class

NAMES = st.text(string.ascii_letters + string.digits + "._:", min_size=1, max_size=30)
NUMBERS = st.floats(1e-6, 1e6).map(lambda v: float(f"{v:.6g}"))
ROWS = st.builds(Row, NAMES, NAMES, st.sampled_from(["int8", "fp16"]), NUMBERS, NUMBERS)


@given(st.lists(ROWS, min_size=1, max_size=8), st.dictionaries(st.sampled_from(["method", "frames"]), NAMES))
def test_a_table_reads_back_as_it_was(rows: list[Row], about: dict[str, str]) -> None:
    table = CalibrationTable(tuple(rows), about, {"rgb": "ab" * 32})
    again = parse_table(table.to_text(), "table")
    assert again == table
    assert again.to_text() == table.to_text()


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_table_that_was_read_back_makes_the_same_file(method: str) -> None:
    """Also where the classes' standardisations are taken apart, and whatever threads the process has."""
    data, _ = by_class(3, width=200)
    seen = Histogram()
    seen.add(np.random.default_rng(0).standard_normal(5000).astype(np.float32) / 3)
    made = []
    table = None
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            model = share_standardisation(data, "tokens")
            table = table or make_table({"tokens": model}, {("tokens", "fc"): seen}, method, {"tokens": "00"})
            made.append(to_int8(Graph(model), table.ranges("tokens"), set()))
        table = parse_table(table.to_text(), "table")
    assert made[0] == made[1]


def test_it_is_one_line_a_layer() -> None:
    rows = (Row("rgb", "blocks.0.attn.qkv", "int8", 4.5, 6.25), Row("score", "text", "fp16", 1.0, 1.0))
    text = CalibrationTable(rows, {"method": "entropy"}, {"rgb": "00"}).to_text()
    assert text.splitlines() == [
        "# edge-ad int8 calibration 1",
        "# method: entropy",
        "# graph rgb: 00",
        "# graph  layer  mode  range  peak",
        "rgb    blocks.0.attn.qkv  int8  4.5    6.25",
        "score  text               fp16  1      1",
    ]


def test_blocks_can_be_left_in_fp16() -> None:
    rows = tuple(Row("rgb", f"blocks.{i}.fc1", "int8", 1.0, 1.0) for i in range(3))
    blocks = {("rgb", r.layer): r.layer.rpartition(".")[0] for r in rows}
    table = CalibrationTable(rows).left(blocks, [("rgb", "blocks.1")])
    assert [r.mode for r in table.rows] == ["int8", "fp16", "int8"]
    assert set(table.ranges("rgb")) == {"blocks.0.fc1", "blocks.2.fc1"}
    assert table.ranges("points") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is no calibration table"),
        ("# something else\n", "is no calibration table"),
        ("# edge-ad int8 calibration 2\nrgb a int8 1 1\n", "table format 2"),
        ("# edge-ad int8 calibration 1\n", "lists no layer"),
        ("# edge-ad int8 calibration 1\nrgb a int8 1\n", "line 2: 'rgb a int8 1'"),
        ("# edge-ad int8 calibration 1\nrgb a int4 1 1\n", "line 2: mode 'int4'"),
        ("# edge-ad int8 calibration 1\nrgb a int8 -1 1\n", "line 2: range -1"),
        ("# edge-ad int8 calibration 1\nrgb a int8 nan 1\n", "line 2: range nan"),
        ("# edge-ad int8 calibration 1\nrgb a int8 wide 1\n", "line 2: 'rgb a int8 wide 1'"),
    ],
)
def test_what_is_no_table_is_refused(text: str, found: str) -> None:
    with pytest.raises(EdgeAdError, match=found):
        parse_table(text, "t.txt")


def test_a_missing_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match=r"no\.txt does not exist; .*edge-ad calibrate int8 BUNDLE --data DIR"):
        read_table(tmp_path / "no.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgeAdError, match=r"binary\.txt cannot be read"):
        read_table(tmp_path / "binary.txt")


def test_a_table_of_another_graph_is_refused() -> None:
    table = CalibrationTable((Row("rgb", "a", "int8", 1.0, 1.0),), {}, {"rgb": "aa" * 32})
    check_table(table, {"rgb": "aa" * 32}, "t.txt")
    with pytest.raises(EdgeAdError, match="t.txt is for a graph rgb with SHA-256 aaaaaaaaaaaa; expected bbbbbbbbbbbb"):
        check_table(table, {"rgb": "bb" * 32}, "t.txt")
