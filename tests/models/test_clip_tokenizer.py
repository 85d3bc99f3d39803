"""CLIP's tokenizer: on a small made vocabulary, and on the published one where it is at hand."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.errors import EdgeAdError
from edge_ad.models.clip_tokenizer import VOCABULARY_FILE, ClipTokenizer, byte_symbols, split_words
from tests.shared import SHARED, needs_shared

MERGES = ["l o", "lo w</w>", "e r</w>", "lo w", "low er</w>", "o w"]


def make_vocabulary(folder: Path) -> Path:
    path = folder / "vocabulary.txt.gz"
    path.write_bytes(gzip.compress(("#version: made\n" + "\n".join(MERGES) + "\n").encode()))
    return path


def published_vocabulary() -> Path | None:
    spec = importlib.util.find_spec("open_clip") or importlib.util.find_spec("clip")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / VOCABULARY_FILE
    return path if path.is_file() else None


def test_merges_by_rank(tmp_path: Path) -> None:
    tokenizer = ClipTokenizer(make_vocabulary(tmp_path))
    merged = {m.replace(" ", ""): 512 + i for i, m in enumerate(MERGES)}
    start, end = 512 + len(MERGES), 513 + len(MERGES)
    assert tokenizer.encode("low") == [merged["low</w>"]]
    assert tokenizer.encode("lower") == [merged["lower</w>"]]
    assert tokenizer.encode("LOW  &amp;\n lower") == [merged["low</w>"], 256 + ord("&") - 33, merged["lower</w>"]]
    # "slow": "l o" ranks above "o w", then "lo w</w>".
    assert tokenizer.encode("slow") == [ord("s") - 33, merged["low</w>"]]
    ids = tokenizer(["low", ""])
    assert ids.shape == (2, 77)
    assert ids.dtype == torch.int64
    assert ids[0, :4].tolist() == [start, merged["low</w>"], end, 0]
    assert ids[1, :3].tolist() == [start, end, 0]
    assert ids[0].argmax() == 2


def test_byte_symbols_are_a_bijection() -> None:
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256))
    assert len(set(symbols.values())) == 256
    assert list(symbols)[:2] == [ord("!"), ord('"')]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a photo of a bagel.", ["a", "photo", "of", "a", "bagel", "."]),
        ("it's 42 mm", ["it", "'s", "4", "2", "mm"]),
        ("x--y ?!", ["x", "--", "y", "?!"]),
        ("größe <|endoftext|>", ["größe", "<|endoftext|>"]),
        ("", []),
    ],
)
def test_split_words(text: str, words: list[str]) -> None:
    assert list(split_words(text)) == words


def test_too_long_and_bad_files(tmp_path: Path) -> None:
    tokenizer = ClipTokenizer(make_vocabulary(tmp_path))
    with pytest.raises(EdgeAdError, match="at most 77"):
        tokenizer("low " * 76)
    assert tokenizer("low " * 75)[0, -1] == 513 + len(MERGES)
    with pytest.raises(EdgeAdError, match="does not exist"):
        ClipTokenizer(tmp_path / "none.gz")
    (tmp_path / "plain.gz").write_text("l o\n")
    with pytest.raises(EdgeAdError, match="not gzip"):
        ClipTokenizer(tmp_path / "plain.gz")
    (tmp_path / "odd.gz").write_bytes(gzip.compress(b"#v\na b c\n"))
    with pytest.raises(EdgeAdError, match="not a list of merges"):
        ClipTokenizer(tmp_path / "odd.gz")
    whole = make_vocabulary(tmp_path).read_bytes()
    (tmp_path / "half.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EdgeAdError, match="not gzip"):
        ClipTokenizer(tmp_path / "half.gz")


@needs_shared
def test_single_character_ids_of_the_golden_prompts(tmp_path: Path) -> None:
    """Ids of one-character words do not depend on the merges, so they hold without the published file."""
    golden = np.load(SHARED / "golden" / "clip_text_tiny.npz")
    tokenizer = ClipTokenizer(make_vocabulary(tmp_path))
    assert str(golden["prompts"][0]).startswith("a photo")
    assert tokenizer.encode("a") == [int(golden["token_ids"][0, 1])]
    last = int(golden["token_ids"][0].argmax())
    assert str(golden["prompts"][0]).endswith(".")
    assert tokenizer.encode(".") == [int(golden["token_ids"][0, last - 1])]


@needs_shared
@pytest.mark.skipif(
    published_vocabulary() is None, reason=f"{VOCABULARY_FILE} is absent: it comes with open_clip_torch"
)
def test_golden_token_ids() -> None:
    golden = np.load(SHARED / "golden" / "clip_text_tiny.npz")
    vocabulary = published_vocabulary()
    assert vocabulary is not None
    ids = ClipTokenizer(vocabulary)([str(p) for p in golden["prompts"]])
    np.testing.assert_array_equal(ids.numpy(), golden["token_ids"])
