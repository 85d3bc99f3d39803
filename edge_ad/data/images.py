"""Reading image files so that every fault is one :class:`InvalidFrame` that names the file.

OpenCV and libtiff decode files that were cut short without a word (the missing rows come out black or grey,
which a detector would take for a defect or for lost depth), so the containers are checked first.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, U8, Bool

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
# A cloud whose median distance is beyond this is in millimetres, not in metres.
MAX_MEDIAN_Z_M = 100.0

# tifffile logs what it then raises; without any handler Python would print that as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_NUMBERS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key under which ``part2`` stands before ``part10``; total, so that an order never depends on the disk."""
    parts = tuple((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(_NUMBERS.split(name)))
    return parts, name


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises InvalidFrame when it is missing, unreadable or empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidFrame(f"{path} does not exist", "a file beside its sample's other files") from None
    except OSError as e:
        raise InvalidFrame(f"{path} cannot be read ({e.strerror})") from None
    if not data:
        raise InvalidFrame(f"{path} is empty (0 bytes)", "a file with content")
    return data


def _check_png(data: bytes) -> str:
    """Fault of a PNG file in words, ``""`` when whole: all chunks up to IEND are there and their checksums hold."""
    pos, end = len(PNG_SIGNATURE), len(data)
    while pos + 12 <= end:
        length, kind = struct.unpack_from(">I4s", data, pos)
        after = pos + 12 + length
        if after > end:
            return f"the PNG is cut short in a {kind.decode('latin-1')} chunk at byte {end}"
        (crc,) = struct.unpack_from(">I", data, after - 4)
        if zlib.crc32(data[pos + 4 : after - 4]) != crc:
            return f"the PNG is damaged (checksum of a {kind.decode('latin-1')} chunk at byte {pos})"
        if kind == b"IEND":
            return ""
        pos = after
    return f"the PNG is cut short at byte {end} (no IEND chunk)"


def _check_jpeg(data: bytes) -> str:
    # Inside a scan 0xFF is stuffed, so an end marker behind the last start of scan is a real one.
    return "" if data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") >= 0 else "the JPEG is cut short (no end marker)"


def read_image(path: Path) -> NDArray[Any]:
    """Decode a PNG, JPEG or BMP as it is stored: (H, W) or (H, W, 3 or 4), uint8 or uint16, OpenCV's channel order.

    Raises
    ------
    InvalidFrame
        When the file is missing, empty, cut short, damaged or not an image.
    """
    data = read_bytes(path)
    fault = ""
    if data.startswith(PNG_SIGNATURE):
        fault = _check_png(data)
    elif data.startswith(b"\xff\xd8"):
        fault = _check_jpeg(data)
    if fault:
        raise InvalidFrame(f"{path}: {fault}", "a whole image file", "record or copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise InvalidFrame(f"{path} cannot be decoded", "a PNG, JPEG or BMP image")
    # OpenCV's wheels differ in whether one channel comes back as (H, W) or as (H, W, 1).
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _said(image: NDArray[Any]) -> str:
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else image.shape[2]
    return f"{width} x {height}, {channels} channel{'s' if channels > 1 else ''}, {image.dtype}"


def read_colour(path: Path) -> U8:
    """(H, W, 3) uint8 RGB; alpha is dropped, grey is repeated. Raises InvalidFrame."""
    image = read_image(path)
    if image.dtype != np.uint8:
        raise InvalidFrame(f"{path}: {_said(image)}", "a colour image with 8 bits a channel")
    if image.ndim == 2:
        return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
    return np.ascontiguousarray(image[..., 2::-1])


def read_depth(path: Path) -> NDArray[np.uint16]:
    """(H, W) uint16 raw depth. Raises InvalidFrame for any other image."""
    image = read_image(path)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise InvalidFrame(
            f"{path}: {_said(image)}", "depth as one channel of 16 bits", "write it as a 16 bit PNG, unscaled"
        )
    return np.asarray(image, np.uint16)


def read_mask(path: Path) -> Bool:
    """(H, W) bool: pixels > 0 in any colour channel (alpha is no colour). Raises InvalidFrame."""
    image = read_image(path)
    return np.asarray(image > 0 if image.ndim == 2 else (image[..., :3] > 0).any(axis=2), np.bool_)


def _check_tiff(data: bytes) -> str:
    """Fault of a TIFF's chain of pages in words, ``""`` when it is whole (tifffile drops lost pages and goes on)."""
    order = "<" if data[:2] == b"II" else ">"
    version = struct.unpack_from(order + "H", data, 2)[0] if len(data) >= 4 else 0
    if data[:2] not in (b"II", b"MM") or version not in (42, 43):
        return "no TIFF"
    # Classic: u16 count, 12 bytes an entry, u32 offsets. BigTIFF: u64, 20, u64.
    count_type, entry, offset_type, at = ("H", 12, "I", 4) if version == 42 else ("Q", 20, "Q", 8)
    offset_size = struct.calcsize(offset_type)
    seen: set[int] = set()
    while True:
        if at + offset_size > len(data):
            return f"the TIFF is cut short at byte {len(data)}"
        (page,) = struct.unpack_from(order + offset_type, data, at)
        if page == 0:
            return "" if seen else "the TIFF has no page"
        if page in seen:
            return "the TIFF's pages go in a circle"
        seen.add(page)
        if page + struct.calcsize(count_type) > len(data):
            return f"the TIFF is cut short at byte {len(data)}"
        (count,) = struct.unpack_from(order + count_type, data, page)
        at = page + struct.calcsize(count_type) + count * entry


def read_xyz(path: Path) -> F32:
    """(H, W, 3) float32 metres from a TIFF (float64 is converted); NaN and zeros are kept. Raises InvalidFrame."""
    data = read_bytes(path)
    size = len(data)
    fault = _check_tiff(data)
    if fault:
        raise InvalidFrame(f"{path}: {fault}", "a whole float32 TIFF of shape (H, W, 3)", "record or copy it again")
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            # A series, not a page: some writers store the rows of (H, W, 3) as pages of their own.
            series = tiff.series[0]
            ends = [o + n for p in series.pages if p for o, n in zip(p.dataoffsets, p.databytecounts, strict=False)]
            if series.dataoffset is not None:
                ends.append(series.dataoffset + series.nbytes)
            reach = max(ends, default=0)
            xyz = None if reach > size else series.asarray()
    except Exception as e:  # tifffile raises whatever its parser meets in a damaged file
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise InvalidFrame(f"{path} cannot be decoded ({reason})", "a float32 TIFF of shape (H, W, 3)") from None
    if xyz is None:
        raise InvalidFrame(
            f"{path}: the TIFF is cut short at byte {size} of {reach}", "a whole file", "record or copy it again"
        )
    if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype not in (np.float32, np.float64):
        raise InvalidFrame(f"{path}: shape {xyz.shape}, {xyz.dtype}", "xyz of shape (H, W, 3), float32, in metres")
    xyz = np.ascontiguousarray(xyz, np.float32)
    z = xyz[..., 2]
    z = z[np.isfinite(z) & (z > 0)]
    if z.size and float(np.median(z)) > MAX_MEDIAN_Z_M:
        raise InvalidFrame(f"{path}: median z is {float(np.median(z)):.0f}", "metres", "divide millimetres by 1000")
    return xyz


def same_size(path: Path, image: NDArray[Any], colour_path: Path, colour: U8) -> None:
    """Raise InvalidFrame unless ``image`` has the height and width of ``colour``."""
    if image.shape[:2] != colour.shape[:2]:
        raise InvalidFrame(
            f"{path}: {image.shape[1]} x {image.shape[0]}",
            f"{colour.shape[1]} x {colour.shape[0]} as {colour_path.name} (both on one pixel grid)",
        )


def read_truth(colour_path: Path, mask_path: Path | None, good: bool) -> Bool | None:
    """Ground truth (H, W) of one sample: its mask; without one all False for a good part, else None (unknown).

    Raises InvalidFrame when the mask is missing though named, damaged, or of another size than the colour image.
    """
    if mask_path is None and not good:
        return None
    colour = read_colour(colour_path)
    if mask_path is None:
        return np.zeros(colour.shape[:2], np.bool_)
    mask = read_mask(mask_path)
    same_size(mask_path, mask, colour_path, colour)
    return mask


def defect_of_mask(mask: Path) -> str:
    """``"good"`` for a mask that is black everywhere, else ``"anomaly"`` (a broken one too: its reading says why)."""
    try:
        return "anomaly" if read_mask(mask).any() else "good"
    except InvalidFrame:
        return "anomaly"
