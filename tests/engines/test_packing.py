"""Plans on disk: what was packed comes back bit for bit, and only from a file whose hash was checked."""

from __future__ import annotations

import builtins
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.engines import identity, packing
from edge_ad.engines.identity import read_plan, read_sidecar
from edge_ad.engines.packing import pack, unpack
from edge_ad.errors import EdgeAdError
from tests.bundles import tiny_bundle
from tests.engines.plans import write_engine

SOURCE = b"#ifdef __HAS_FP16\ntemplate<> struct T { int values[4]; };\n" * 400


@given(st.binary(max_size=400), st.integers(0, 60))
def test_what_was_packed_comes_back_and_is_never_larger(data: bytes, times: int) -> None:
    name, stored = pack("g.plan", data * times)
    assert unpack(name, stored) == data * times and len(stored) <= len(data * times)
    assert (name == "g.plan.xz") == (len(stored) < len(data * times))


def test_a_large_plan_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(pack("g.plan", SOURCE)[1]) < len(SOURCE) / 20
    monkeypatch.setattr(packing, "LARGEST", len(SOURCE) - 1)
    assert pack("g.plan", SOURCE) == ("g.plan", SOURCE)


def test_what_does_not_unpack_is_said() -> None:
    with pytest.raises(EdgeAdError, match="g.plan.xz does not unpack .*build the engine again"):
        unpack("g.plan.xz", b"not packed")


def test_a_python_without_lzma(monkeypatch: pytest.MonkeyPatch) -> None:
    name, stored = pack("g.plan", SOURCE)
    real = builtins.__import__

    def without(module: str, *args: object, **kwargs: object) -> object:
        if module == "lzma":
            raise ImportError(module)
        return real(module, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert pack("g.plan", SOURCE) == ("g.plan", SOURCE)
    with pytest.raises(EdgeAdError, match="no module lzma"):
        unpack(name, stored)


def test_a_packed_plan_is_hashed_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    folder = write_engine(bundle, "1.7.1", ("8.6",))
    name, stored = pack("rgb.plan", SOURCE)
    (folder / name).write_bytes(stored)
    values = json.loads((folder / "sidecar.json").read_text())
    values["plans"]["rgb"].update(file=name, sha256=hashlib.sha256(stored).hexdigest(), bytes=len(stored))
    (folder / "sidecar.json").write_text(json.dumps(values))
    sidecar = read_sidecar(folder)
    assert read_plan(folder, sidecar, bundle, "rgb") == SOURCE
    flipped = bytes([*stored[:40], stored[40] ^ 1, *stored[41:]])
    (folder / name).write_bytes(flipped)
    monkeypatch.setattr(identity, "unpack", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(EdgeAdError, match="rgb.plan.xz has SHA-256 .*--force"):
        read_plan(folder, sidecar, bundle, "rgb")
    (folder / name).write_bytes(stored[:-1])
    with pytest.raises(EdgeAdError, match="rgb.plan.xz has .* bytes; expected"):
        read_plan(folder, sidecar, bundle, "rgb")
