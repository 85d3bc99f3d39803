"""Which parts are measured and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.choice import spread
from edge_ad.evaluation.choice import test_items as choose


def item(name: str, split: str, defect: str, number: int) -> Item:
    def nothing() -> None:
        raise AssertionError("the choice reads no file")

    return Item(f"{name}/{defect}/{number}", name, split, defect, Path("x.png"), nothing, nothing)  # type: ignore[arg-type]


def parts() -> Dataset:
    items = [item(c, "test", d, i) for c in ("nut", "cap") for d in ("good", "dent", "stain") for i in range(3)]
    return Dataset(Path("parts"), "recordings", (*items, item("nut", "train", "good", 9)))


def test_test_parts_of_the_classes_that_are_wanted_and_no_more_than_the_limit() -> None:
    assert len(choose(parts(), ["nut", "cap"], None, 0)) == 18
    some = choose(parts(), ["cap"], ("cap", "nut"), 2)
    assert {i.class_name for i in some} == {"cap"}
    assert sorted(i.defect for i in some) == ["dent", "dent", "good", "good", "stain", "stain"]


def test_what_cannot_be_chosen_is_one_line() -> None:
    for wanted, known, text in (
        (["gear"], None, "has no class 'gear'; expected one of nut, cap"),
        (["nut"], ("cap",), "does not know the class 'nut'.*--class auto"),
    ):
        with pytest.raises(EdgeAdError, match=text):
            choose(parts(), wanted, known, 0)
    with pytest.raises(EdgeAdError, match="no test parts"):
        choose(Dataset(Path("parts"), "recordings", (item("nut", "train", "good", 0),)), ["nut"], None, 0)


@pytest.mark.parametrize("rows", [1, 6, 7, 18, 40])
def test_a_sheet_shows_every_class_and_defect_before_it_shows_one_twice(rows: int) -> None:
    items = choose(parts(), ["nut", "cap"], None, 0)
    names = spread(items, rows)
    assert len(names) == min(rows, 18) and names == spread(items, rows)
    counts = [sum(n.startswith(f"{c}/{d}/") for n in names) for c in ("nut", "cap") for d in ("good", "dent", "stain")]
    assert max(counts) - min(counts) <= 1
