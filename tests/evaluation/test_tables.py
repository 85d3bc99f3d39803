"""Tables: aligned, complete, and never without the number of thresholds."""

from __future__ import annotations

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.tables import Table, metrics_table, percent, thresholds_note

VALUES = {
    "cable gland": {"i_auroc": 0.94, "p_auroc": 0.991, "aupro_30": 0.97, "aupro_1": 0.449},
    "peach": {"i_auroc": 1.0, "p_auroc": None, "aupro_30": None, "aupro_1": None},
}


def test_text():
    assert metrics_table(VALUES, 99, title="Test").to_text().splitlines() == [
        "Test",
        "class        I-AUROC  P-AUROC  AUPRO@30%  AUPRO@1%",
        "--------------------------------------------------",
        "cable gland     94.0     99.1       97.0      44.9",
        "peach          100.0        -          -         -",
        "--------------------------------------------------",
        "mean            97.0     99.1       97.0      44.9",
        "metrics in per cent",
        "AUPRO: 99 thresholds (the published convention); figures of another number do not compare",
        "mean of P-AUROC without peach",
        "mean of AUPRO@30% without peach",
        "mean of AUPRO@1% without peach",
    ]


def test_markdown():
    lines = metrics_table(VALUES, None, counts={"cable gland": (3, 40), "peach": (5, 2)}).to_markdown().splitlines()
    assert lines[:5] == [
        "| class | good | defective | I-AUROC | P-AUROC | AUPRO@30% | AUPRO@1% |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| cable gland | 3 | 40 | 94.0 | 99.1 | 97.0 | 44.9 |",
        "| peach | 5 | 2 | 100.0 | - | - | - |",
        "| **mean** | **8** | **42** | **97.0** | **99.1** | **97.0** | **44.9** |",
    ]
    assert "- AUPRO: exact integration over all distinct scores" in lines


def test_markdown_escapes_the_bar():
    assert "| a\\|b |" in Table("", ("x",), (("a|b",),)).to_markdown()


def test_json_holds_cells_by_heading():
    document = metrics_table(VALUES, None).to_json()
    assert document["rows"][0]["AUPRO@1%"] == "44.9" and document["footer"][0]["class"] == "mean"
    assert thresholds_note(None) in document["notes"]


def test_a_short_row_is_refused():
    with pytest.raises(EdgeAdError, match="1 cells in a table of 2 columns"):
        Table("", ("a", "b"), (("x",),))


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0, "0.0"), (1.0, "100.0"), (0.94449, "94.4")])
def test_percent(value, text):
    assert percent(value) == text
