"""Checkpoints from local files, without ever running what a pickle may hold.

Only tensors are read: safetensors, or ``torch.load(weights_only=True)``. A file that does not fit the
module is one :class:`EdgeAdError` that lists every key at fault.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError

# The published files that nest their weights: Point-MAE ("base_model"), training checkpoints of
# most repositories ("state_dict", "model"), DINO's full checkpoints ("teacher").
WRAPPERS = ("base_model", "state_dict", "model", "teacher")
AS_SAFETENSORS = (
    "save its state dict as safetensors: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, on the CPU.

    Parameters
    ----------
    path : file in safetensors or ``torch.save`` format (zip or legacy). The keys come back as they are in the
        file; only the outer dict of a nested checkpoint (one of ``WRAPPERS``) is taken off.

    Raises
    ------
    EdgeAdError
        The file is missing, truncated or no checkpoint, is a TorchScript archive, or needs code to load.
    """
    path = Path(path)
    if not path.is_file():
        raise EdgeAdError(
            f"checkpoint {path} does not exist", "a local checkpoint file", "download it, or name another"
        )
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as e:
            raise EdgeAdError(
                f"{path} is not a safetensors file ({_first_line(e)})", "", "copy the file anew"
            ) from None
    if _is_torchscript(path):
        raise EdgeAdError(
            f"{path} is a TorchScript archive, which holds code",
            "a file of weights alone",
            "on a machine where you trust the file, run: "
            'python -c "import torch; from safetensors.torch import save_file; '
            f"m = torch.jit.load('{path.name}', 'cpu'); "
            "save_file({k: v.contiguous() for k, v in m.state_dict().items()}, "
            f"'{path.stem}.safetensors')\"",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise _unpickling_error(path, e) from None
    except Exception as e:  # torch.load raises many kinds for a damaged file (EOFError, KeyError, RuntimeError, ...)
        raise EdgeAdError(
            f"{path} is not a readable checkpoint ({_first_line(e)})",
            "a file of torch.save or safetensors",
            "the file may be truncated: copy it anew",
        ) from None
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise EdgeAdError(f"{path} holds a {type(content).__name__}", "a state dict (names to tensors)", AS_SAFETENSORS)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    others = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if others or not content:
        what = f"no tensor under {_some(others)}" if others else "nothing"
        raise EdgeAdError(f"{path} holds {what}", "a state dict (names to tensors)", AS_SAFETENSORS)
    return {str(k): v.detach() for k, v in content.items()}


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _unpickling_error(path: Path, error: Exception) -> EdgeAdError:
    text = str(error)
    if "GLOBAL" in text or "Unsupported" in text or "instruction" in text:
        return EdgeAdError(
            f"{path} is a pickle that holds more than tensors, and code in a pickle is never run",
            "a file of weights alone",
            AS_SAFETENSORS,
        )
    return EdgeAdError(
        f"{path} is not a readable checkpoint ({_first_line(error)})",
        "a file of torch.save or safetensors",
        "the file may be truncated: copy it anew",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def load_exact(module: nn.Module, state: Mapping[str, Tensor], *, where: str, ignore: Sequence[str] = ()) -> None:
    """Copy ``state`` into ``module``; every key must fit, in name and in shape.

    Parameters
    ----------
    module : filled in place; nothing is copied when anything is wrong.
    state : names to tensors, in the module's own layout.
    where : what the error names (normally the file).
    ignore : patterns (``fnmatch``) of names in ``state`` that are known not to belong to the module.

    Raises
    ------
    EdgeAdError
        Missing, unknown, wrongly shaped or non-finite tensors, all listed in one line.
    """
    own = module.state_dict()
    given = {k: v for k, v in state.items() if k in own or not any(fnmatchcase(k, p) for p in ignore)}
    # The batch counter of a BatchNorm layer is no weight and is unused in eval mode; old checkpoints lack it.
    missing = [k for k in own if k not in given and not k.endswith(".num_batches_tracked")]
    unknown = [k for k in given if k not in own]
    shapes = [
        f"{k} {tuple(v.shape)} instead of {tuple(own[k].shape)}"
        for k, v in given.items()
        if k in own and v.shape != own[k].shape
    ]
    bad = [k for k, v in given.items() if k in own and v.is_floating_point() and not bool(torch.isfinite(v).all())]
    faults = [
        f"{label}: {_some(names)}"
        for label, names in (
            ("wrong shape", shapes),
            ("missing", missing),
            ("unknown", unknown),
            ("not finite", bad),
        )
        if names
    ]
    if faults:
        raise EdgeAdError(
            f"{where} does not fit {type(module).__name__} ({'; '.join(faults)})",
            "the published layout in the configured sizes",
            "check the checkpoint and the preset's sizes",
        )
    module.load_state_dict(given, strict=False)
