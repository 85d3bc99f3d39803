"""Reading checkpoints: what loads, what is refused, and that a pickle's code never runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import load_exact, read_state

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class RunsCode:
    """Unpickling this makes the folder that ``path`` names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrapper", [None, "base_model", "state_dict", "model", "teacher"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_load_plain_and_nested(tmp_path: Path, wrapper: str | None, zipped: bool) -> None:
    content = STATE if wrapper is None else {wrapper: STATE, "epoch": 7, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    state = read_state(tmp_path / "w.pth")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_safetensors_load(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(read_state(str(tmp_path / "w.safetensors"))["weight"], STATE["weight"])


def _truncated(folder: Path, zipped: bool) -> Path:
    torch.save({"w": torch.zeros(4000)}, folder / "whole.pth", _use_new_zipfile_serialization=zipped)
    path = folder / "half.pth"
    path.write_bytes((folder / "whole.pth").read_bytes()[:3000])
    return path


def _bytes(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def _torchscript(folder: Path) -> Path:
    module = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    module.save(str(folder / "ViT-B-32.pt"))
    return folder / "ViT-B-32.pt"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda d: d / "none.pth", ("none.pth", "does not exist"), id="missing"),
        pytest.param(lambda d: _truncated(d, True), ("half.pth", "truncated"), id="truncated-zip"),
        pytest.param(lambda d: _truncated(d, False), ("half.pth", "truncated"), id="truncated-legacy"),
        pytest.param(lambda d: _bytes(d, "empty.pth", b""), ("empty.pth", "not a readable"), id="empty"),
        pytest.param(lambda d: _bytes(d, "text.pth", b"hello world"), ("text.pth", "not a readable"), id="text"),
        pytest.param(lambda d: _bytes(d, "x.safetensors", b"12345678ab"), ("not a safetensors",), id="safetensors"),
        pytest.param(lambda d: _saved(d, [1, 2]), ("holds a list", "state dict"), id="a-list"),
        pytest.param(lambda d: _saved(d, {}), ("holds nothing",), id="nothing"),
        pytest.param(lambda d: _saved(d, {"a": torch.ones(1), "b": 3}), ("no tensor under b",), id="no-tensor"),
        pytest.param(_torchscript, ("TorchScript", "ViT-B-32.safetensors", "state_dict()"), id="torchscript"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_refused_files_are_one_clear_line(tmp_path: Path, make: Callable[[Path], Path], words: tuple[str, ...]) -> None:
    with pytest.raises(EdgeAdError) as e:
        read_state(make(tmp_path))
    assert all(w in str(e.value) for w in words), str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, how: str) -> None:
    mark = tmp_path / "code-ran"
    content = {"state_dict": STATE, "x": RunsCode(mark)}
    if how == "torch":
        torch.save(content, tmp_path / "w.pth")
    else:
        (tmp_path / "w.pth").write_bytes(pickle.dumps({"x": RunsCode(mark)}))
    with pytest.raises(EdgeAdError, match="code in a pickle is never run"):
        read_state(tmp_path / "w.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": None}, ("missing: weight",)),
        ({"more": torch.ones(1)}, ("unknown: more",)),
        ({"weight": torch.ones(3, 3)}, ("wrong shape: weight (3, 3) instead of (2, 3)",)),
        ({"bias": torch.tensor([1.0, float("nan")])}, ("not finite: bias",)),
        (
            {"weight": torch.ones(1), "bias": None, "more": torch.ones(1)},
            ("wrong shape: weight", "missing: bias", "unknown: more"),
        ),
    ],
)
def test_load_exact_lists_every_fault_and_changes_nothing(
    change: dict[str, Tensor | None], words: tuple[str, ...]
) -> None:
    module = nn.Linear(3, 2)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {k: v for k, v in {**STATE, **change}.items() if v is not None}
    with pytest.raises(EdgeAdError) as e:
        load_exact(module, state, where="file.pth", ignore=("head.*",))
    assert all(w in str(e.value) for w in ("file.pth", "Linear", *words)), str(e.value)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_load_exact_ignores_by_name_and_casts_half_precision() -> None:
    module = nn.Linear(3, 2)
    state = {k: v.half() for k, v in STATE.items()} | {"head.weight": torch.ones(9)}
    load_exact(module, state, where="file.pth", ignore=("head.*",))
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, STATE["weight"])


def test_an_ignored_pattern_never_hides_a_key_of_the_module() -> None:
    module = nn.Linear(3, 2)
    load_exact(module, STATE, where="file.pth", ignore=("*",))
    assert torch.equal(module.weight, STATE["weight"])
