"""Which parts of a data set are measured, and which of them are shown."""

from __future__ import annotations

import zlib

from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError


def test_items(dataset: Dataset, wanted: list[str], known: tuple[str, ...] | None, limit: int) -> list[Item]:
    """Parts of the test split of ``wanted`` classes; ``limit``: at most so many a class and defect (0: all).

    ``known``: classes that may be asked for (None: any). Raises EdgeAdError for another, and where no part is left.
    """
    items: list[Item] = []
    for name in wanted:
        if name not in dataset.classes:
            raise EdgeAdError(f"{dataset.root} has no class '{name}'", f"one of {', '.join(dataset.classes)}")
        if known is not None and name not in known:
            raise EdgeAdError(
                f"the bundle does not know the class '{name}'", f"one of {', '.join(known)}", "or --class auto"
            )
        here = dataset.select(name, "test")
        kept: dict[str, int] = {}
        for item in here:
            kept[item.defect] = kept.get(item.defect, 0) + 1
            if not limit or kept[item.defect] <= limit:
                items.append(item)
    if not items:
        raise EdgeAdError(f"{dataset.root} has no test parts", "a split 'test'")
    return items


def spread(items: list[Item], rows: int) -> set[str]:
    """Names of ``rows`` parts for a contact sheet: classes and defects in turn, in an order that is mixed but fixed."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in items:
        groups.setdefault((item.class_name, item.defect), []).append(item.name)
    order = sorted(groups, key=lambda k: (zlib.crc32(k[1].encode()), k[0]))
    out: list[str] = []
    turn = 0
    while len(out) < min(rows, len(items)):
        out += [groups[k][turn] for k in order if turn < len(groups[k])]
        turn += 1
    return set(out[:rows])
