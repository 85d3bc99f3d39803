"""CLIP's byte-pair tokenizer: text -> (N,77) ids, from a local vocabulary file.

The file ``bpe_simple_vocab_16e6.txt.gz`` comes with OpenAI's CLIP repository (folder ``clip``) and is not shipped
here. CLIP's ``ftfy`` repair of broken text is left out: it changes nothing in well-formed prompts.
"""

from __future__ import annotations

import gzip
import html
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from edge_ad.errors import EdgeAdError

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
MAX_MERGES = 49152 - 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def byte_symbols() -> dict[int, str]:
    """A printable symbol for every byte, in the order in which the vocabulary lists them (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def split_words(text: str) -> Iterator[str]:
    """Cut text as CLIP's pattern does: special tokens, contractions, runs of letters, single digits, other runs."""
    i = 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        fixed = next((t for t in (START, END, *CONTRACTIONS) if text.startswith(t, i)), None)
        if fixed is not None:
            end = i + len(fixed)
        else:
            kind = _kind(text[i])
            end = i + 1
            while kind != "number" and end < len(text) and _kind(text[end]) == kind:
                end += 1
        yield text[i:end]
        i = end


def _kind(char: str) -> str:
    if char.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(char)[0], "other")


class ClipTokenizer:
    """``tokenizer(texts) -> (N, context_length) int64``; start and end marked, padded with 0.

    Raises EdgeAdError when the vocabulary file is missing or broken, or a text is too long.
    """

    def __init__(self, vocabulary: str | Path, context_length: int = 77) -> None:
        merges = _read_merges(Path(vocabulary))
        self.context_length = context_length
        self.symbols = byte_symbols()
        single = list(self.symbols.values())
        entries = [*single, *(s + WORD_END for s in single), *("".join(m) for m in merges), START, END]
        self.ids = {entry: i for i, entry in enumerate(entries)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without the start and end marks."""
        clean = " ".join(html.unescape(html.unescape(text)).split()).lower()
        ids: list[int] = []
        for word in split_words(clean):
            if word in (START, END):
                ids.append(self.ids[word])
                continue
            symbols = [self.symbols[b] for b in word.encode("utf-8")]
            ids.extend(self.ids[piece] for piece in self._merge(symbols))
        return ids

    def _merge(self, symbols: list[str]) -> list[str]:
        """Byte-pair encoding: join the best-ranked neighbours everywhere, until no known pair is left."""
        pieces = [*symbols[:-1], symbols[-1] + WORD_END]
        while len(pieces) > 1:
            best = min(zip(pieces, pieces[1:], strict=False), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined: list[str] = []
            i = 0
            while i < len(pieces):
                if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best:
                    joined.append(pieces[i] + pieces[i + 1])
                    i += 2
                else:
                    joined.append(pieces[i])
                    i += 1
            pieces = joined
        return pieces

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        texts = [texts] if isinstance(texts, str) else list(texts)
        out = torch.zeros((len(texts), self.context_length), dtype=torch.int64)
        for row, text in zip(out, texts, strict=True):
            ids = [self.ids[START], *self.encode(text), self.ids[END]]
            if len(ids) > self.context_length:
                raise EdgeAdError(f"the text '{text[:40]}...' has {len(ids)} tokens", f"at most {self.context_length}")
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return out


def _read_merges(path: Path) -> list[tuple[str, str]]:
    remedy = f"copy {VOCABULARY_FILE} from OpenAI's CLIP repository (folder clip)"
    if not path.is_file():
        raise EdgeAdError(f"CLIP vocabulary {path} does not exist", "a local file", remedy)
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        raise EdgeAdError(f"{path} is not gzip-compressed text", "CLIP's vocabulary file", remedy) from None
    # The first line is a version comment; the published file lists more merges than CLIP uses.
    pairs = [tuple(line.split()) for line in lines[1 : MAX_MERGES + 1] if line.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise EdgeAdError(f"{path} is not a list of merges", "two symbols a line", remedy)
    return [(pair[0], pair[1]) for pair in pairs]
