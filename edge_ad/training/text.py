"""Prompt embeddings ``T_c`` (METHOD section 4): looked up where they are shipped, else computed.

The text encoder works here and nowhere else: neither the exported graphs nor the device hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32
from edge_ad.models.build import PACKAGE, checkpoint_path
from edge_ad.models.checkpoints import read_state
from edge_ad.models.octa import scale_prompts
from edge_ad.presets import Preset

SHIPPED = Path(__file__).with_name("text_embeddings.npz")
SHIPPED_ENCODER = "minilm"


def embed_prompts(preset: Preset, prompts: Sequence[Sequence[str]], checkpoints_dir: Path | None = None) -> F32:
    """T_c of every class: each prompt's embedding L2-normalised and scaled by sqrt(D_txt).

    Parameters
    ----------
    preset : its ``text`` table names the encoder and the checkpoint.
    prompts : C rows of sentences, all rows of one length (14, see :mod:`edge_ad.training.prompts`).
    checkpoints_dir : where a relative checkpoint file lies. CLIP's vocabulary file lies beside its checkpoint.

    Returns
    -------
    (C, 14, D_txt) float32.

    Raises
    ------
    EdgeAdError
        ``text.encoder`` is ``none``; a sentence that is not shipped while the encoder's package is not installed; a
        checkpoint that is missing or of another size.
    """
    if preset.text.encoder == "none":
        raise EdgeAdError(
            "the preset has text.encoder = none",
            "clip or minilm, for mappers into the text space",
            "set text.encoder, or mappers.kind = cfm for a model without text",
        )
    flat = [p for row in prompts for p in row]
    if preset.text.encoder == "minilm":
        folder = None if preset.text.checkpoint == PACKAGE else checkpoint_path(preset.text.checkpoint, checkpoints_dir)
        rows = _minilm(folder, flat)
    else:
        rows = _clip(checkpoint_path(preset.text.checkpoint, checkpoints_dir), flat)
    if rows.shape[1] != preset.text.dim:
        raise EdgeAdError(
            f"the {preset.text.encoder} encoder gives {rows.shape[1]} channels",
            f"{preset.text.dim} as the preset's text.dim says",
            "set text.dim to the encoder's width",
        )
    return np.asarray(scale_prompts(rows).view(len(prompts), -1, preset.text.dim).numpy(), dtype=np.float32)


@cache
def shipped_embeddings() -> dict[str, F32]:
    """The embeddings that come with this package, by exact prompt; written by ``scripts/make_text_embeddings.py``."""
    with np.load(SHIPPED, allow_pickle=False) as file:
        prompts, embeddings = file["prompts"], file["embeddings"].astype(np.float32)
    return {str(p): e for p, e in zip(prompts, embeddings, strict=True)}


def _minilm(folder: Path | None, sentences: list[str]) -> Tensor:
    from edge_ad.training.minilm import MiniLM, package_folder

    if folder is not None:
        return MiniLM(folder)(sentences)
    known = shipped_embeddings()
    unknown = sorted({s for s in sentences if s not in known})
    computed = dict(zip(unknown, MiniLM(package_folder())(unknown), strict=True)) if unknown else {}
    return torch.stack([computed[s] if s in computed else torch.from_numpy(known[s]) for s in sentences])


def _clip(checkpoint: Path, sentences: list[str]) -> Tensor:
    from edge_ad.models.clip_text import load_text_encoder
    from edge_ad.models.clip_tokenizer import VOCABULARY_FILE, ClipTokenizer

    state = read_state(checkpoint)
    try:
        width = int(state["ln_final.weight"].shape[0])
        context = int(state["positional_embedding"].shape[0])
        embed_dim = int(state["text_projection"].shape[1])
    except (KeyError, IndexError):
        raise EdgeAdError(
            f"{checkpoint}: no ln_final.weight, positional_embedding or text_projection",
            "a CLIP checkpoint in the published layout",
        ) from None
    layers = len({k.split(".")[2] for k in state if k.startswith("transformer.resblocks.")})
    # Every published CLIP text tower has heads of 64 channels.
    encoder = load_text_encoder(state, width=width, heads=max(1, width // 64), layers=layers, embed_dim=embed_dim)
    tokenizer = ClipTokenizer(checkpoint.parent / VOCABULARY_FILE, context_length=context)
    with torch.no_grad():
        features: Tensor = encoder(tokenizer(sentences))
    return features.float()
