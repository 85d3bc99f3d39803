"""``edge-ad cameras``: the sources that ``--camera`` takes, what each needs, and what is connected."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.common import cli_errors, echo_json
from edge_ad.errors import one_line


@dataclass(frozen=True)
class Source:
    """One scheme. ``package``: (module, extra) that it needs; ``lists``: module with ``connected()``, if any."""

    uri: str
    what: str
    example: str
    package: tuple[str, str] | None = None
    lists: str = ""


SOURCES: tuple[Source, ...] = (
    Source(
        "folder:DIR",
        "recordings on disk: NAME.color.png, NAME.depth.png (16 bit) and a camera.json, or a data set's folder",
        "folder:recordings/line1",
    ),
    Source(
        "synthetic:CLASS",
        "made on the fly, no camera needed; seed, number of frames and share of defective parts can be set",
        "synthetic:CLASS?seed=0&frames=50&defects=0.3",
    ),
    Source("belt:CLASS", "synthetic parts on a moving belt that may stop", "belt:gear?parts=5&stop=1&realtime=1"),
    Source(
        "realsense:[SERIAL|FILE]",
        "RealSense cameras, recordings of librealsense (.bag, .db3) and its software device (realsense:simulated)",
        "realsense:?size=1280x720&depth=848x480&preset=FILE.json",
        ("pyrealsense2", "realsense"),
        "edge_ad.sensors.realsense_sdk",
    ),
    Source(
        "orbbec:[SERIAL]",
        "Orbbec cameras that SDK version 2 supports",
        "orbbec:?size=1280x720&fps=15",
        ("pyorbbecsdk", "orbbec"),
        "edge_ad.sensors.orbbec",
    ),
    Source(
        "oak:[ID|IP]",
        "OAK-D cameras (depthai version 3)",
        "oak:?size=640x400",
        ("depthai", "oak"),
        "edge_ad.sensors.oak",
    ),
    Source(
        "opencv:DEVICE",
        "what OpenCV opens: a depth back end, or a colour and an aligned depth stream; needs a camera.json",
        "opencv:0?depth=2&camera=camera.json",
    ),
    Source("rosbag:PATH", "ROS 1 and ROS 2 bags", "rosbag:FOLDER?depth=/camera/depth/image_raw", ("rosbags", "rosbag")),
    Source("mcap:FILE", "MCAP files with ROS messages, e.g. of record --raw", "mcap:line1.mcap", ("mcap", "mcap")),
)


@click.command()
@click.option("--no-search", is_flag=True, help="List the sources without asking for devices.")
@cli_errors
def command(no_search: bool, as_json: bool) -> None:
    """List the sources that --camera takes, what each needs, and the cameras that are connected (docs/cameras.md).

    \b
    Example:
      edge-ad cameras --json
    """
    rows = [_row(source, search=not no_search) for source in SOURCES]
    video = [] if no_search else sorted(str(p) for p in Path("/dev").glob("video*"))
    if as_json:
        echo_json({"cameras": rows, "video_devices": video})
        return
    for row in rows:
        click.echo(f"{row['uri']:<25}{row['what']}")
        click.echo(f"{'':<25}e.g. {row['example']}")
        if row["missing"]:
            click.echo(f"{'':<25}needs '{row['missing']}': {row['remedy']}")
        elif row["error"]:
            click.echo(f"{'':<25}{row['error']}")
        for device in row["devices"]:
            click.echo(f"{'':<25}connected: {' '.join(f'{k} {v}' for k, v in device.items())}")
        if row["lists"] and not (row["missing"] or row["error"] or row["devices"] or no_search):
            click.echo(f"{'':<25}none connected")
    if video:
        click.echo(f"video devices for opencv: {', '.join(video)}")


def _row(source: Source, search: bool) -> dict[str, Any]:
    from importlib import import_module

    row: dict[str, Any] = {"uri": source.uri, "what": source.what, "example": source.example, "devices": []}
    row |= {"missing": None, "remedy": None, "error": None, "lists": bool(source.lists)}
    if source.package is not None and util.find_spec(source.package[0]) is None:
        module, extra = source.package
        return row | {"missing": module, "remedy": f"pip install 'edge-ad[{extra}]'"}
    if source.lists and search:
        from edge_ad.sensors.vendor import silent

        try:
            with silent():
                row["devices"] = import_module(source.lists).connected()
        except Exception as e:  # a maker's SDK that fails must not hide the other sources
            row["error"] = one_line(e) or type(e).__name__
    return row
