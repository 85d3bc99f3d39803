"""Plans on disk: packed with xz where they are small, because then most of a plan is text. Lean.

A TensorRT-RTX plan carries its kernels as CUDA source, to be compiled on the device, and repeats the same header for
each of them: in the INT8 plan of `compact`'s colour encoder 63 times, 3 of 3.8 MB. Packed, what is left is the weights.
A plan of hundreds of megabytes is weights already, and would only load more slowly.
"""

from __future__ import annotations

from edge_ad.errors import EdgeAdError

SUFFIX = ".xz"
LARGEST = 64 << 20
"""Bytes of the largest plan that is packed: 13 MB unpack in 0.2 s."""
_PRESET = 6


def pack(name: str, plan: bytes) -> tuple[str, bytes]:
    """File name and bytes under which a plan is kept: as it is, or packed where that is smaller."""
    try:
        import lzma
    except ImportError:  # a Python that was built without it
        return name, plan
    if len(plan) > LARGEST:
        return name, plan
    packed = lzma.compress(plan, preset=_PRESET)
    return (name + SUFFIX, packed) if len(packed) < len(plan) else (name, plan)


def unpack(name: str, data: bytes) -> bytes:
    """The plan in a file whose hash was checked.

    Raises
    ------
    EdgeAdError
        It is packed and this Python has no ``lzma``, or it does not unpack.
    """
    if not name.endswith(SUFFIX):
        return data
    try:
        import lzma

        return lzma.decompress(data)
    except ImportError:
        raise EdgeAdError(
            f"{name} is packed, and this Python has no module lzma", "it", "use the system's Python, or install liblzma"
        ) from None
    except lzma.LZMAError as e:
        raise EdgeAdError(f"{name} does not unpack ({e})", "a packed plan", "build the engine again") from None
