"""``edge-ad doctor`` on a Jetson: every line of docs/jetson.md is checked, on boards described by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edge_ad.engines.board import Facts, board_checks, gather
from edge_ad.engines.known_faults import KNOWN_FAULTS, known_faults

ORIN = Facts(
    release="R36 (release), REVISION: 4.0",
    chip="tegra234",
    python=(3, 10),
    modules=frozenset({"tensorrt", "pycuda"}),
    distributions=frozenset({"tensorrt", "pycuda", "numpy"}),
    tensorrt="10.7.0",
    total_mb=15600,
    available_mb=9000,
    swap_mb=7800,
    power_mode="MAXN",
    clocks_fixed=True,
)


def states(facts: Facts) -> dict[str, str]:
    return {c.name: c.state for c in board_checks(facts)}


def test_a_good_board_has_nothing_to_mend() -> None:
    assert set(states(ORIN).values()) == {"ok"}
    assert all(c.found and not c.remedy for c in board_checks(ORIN))


@pytest.mark.parametrize(
    ("name", "changes", "remedy"),
    [
        ("python", {"python": (3, 12)}, "use Python 3.10"),
        ("system-site-packages", {"system_site": False}, "--system-site-packages"),
        ("tensorrt", {"tensorrt": None}, "apt install python3-libnvinfer"),
        (
            "no TensorRT from PyPI",
            {"distributions": frozenset({"tensorrt_cu12", "numpy"})},
            "pip uninstall tensorrt_cu12",
        ),
        ("TensorRT version", {"tensorrt": "10.3.0"}, "the golden frames decide"),
        ("TensorRT version", {"tensorrt": "10.13.3.9"}, "the golden frames decide"),
        ("pycuda", {"modules": frozenset({"tensorrt"})}, "edge-ad[cuda]"),
        ("extras", {"modules": frozenset({"tensorrt", "pycuda", "torch"})}, "the core and 'cuda' alone"),
        ("free memory", {"available_mb": 700}, "free 1500 MB"),
        ("workspace", {"total_mb": 7600, "swap_mb": 0}, "--workspace-mb 512"),
        ("workspace", {"total_mb": 7600, "desktop": True}, "without the desktop"),
        ("power mode", {"power_mode": "15W"}, "nvpmodel -m 0"),
        ("power mode", {"power_mode": None}, "nvpmodel -m 0"),
        ("clocks", {"clocks_fixed": False}, "jetson_clocks"),
    ],
)
def test_each_fault_is_found_with_its_remedy(name: str, changes: dict[str, object], remedy: str) -> None:
    checks = board_checks(replace(ORIN, **changes))  # type: ignore[arg-type]
    assert [c.name for c in checks if c.state == "mend"] == [name]
    assert remedy in next(c.remedy for c in checks if c.name == name)


def test_the_page_and_the_checks_name_the_same_lines() -> None:
    page = (Path(__file__).parents[2] / "docs/jetson.md").read_text(encoding="utf-8")
    table = page[page.index("## What `edge-ad doctor` checks") :]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == list(states(ORIN))


def test_the_table_of_versions_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs/engines.md").read_text(encoding="utf-8")
    assert page.count("| 10.") == len(KNOWN_FAULTS)


def test_another_machine_is_no_board(tmp_path: Path) -> None:
    assert board_checks(gather(tmp_path)) == []


def test_facts_are_read_from_the_board(tmp_path: Path) -> None:
    for name, text in {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "proc/meminfo": "MemTotal:        7802100 kB\nMemAvailable:    2048000 kB\nSwapTotal:       3900000 kB\n",
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = gather(tmp_path)
    assert facts.release.startswith("R36") and facts.chip == "tegra234" and facts.clocks_fixed is False
    assert (facts.total_mb, facts.available_mb, facts.swap_mb) == (7619, 2000, 3808)
    names = [c.name for c in board_checks(facts) if c.state == "mend"]
    assert "clocks" in names and "free memory" not in names


def test_faults_without_a_version() -> None:
    assert known_faults("tensorrt", "of unknown version", (8, 7)) == ()
