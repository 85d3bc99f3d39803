"""The prompts of METHOD section 4: seven states of a class in two contexts, fourteen sentences a class."""

from __future__ import annotations

from edge_ad.errors import EdgeAdError

STATES = (
    "{c}",
    "flawless {c}",
    "perfect {c}",
    "unblemished {c}",
    "{c} without flaw",
    "{c} without defect",
    "{c} without damage",
)
CONTEXTS = ("a photo of a {s}.", "a photo of the {s}.")


def class_words(class_name: str) -> str:
    """A class name as it is spoken: ``"cable_gland"`` becomes ``"cable gland"``."""
    words = " ".join(class_name.replace("_", " ").replace("-", " ").split())
    if not words:
        raise EdgeAdError(f"class name {class_name!r}", "at least one word")
    return words


def class_prompts(words: str) -> tuple[str, ...]:
    """The 14 prompts of one class, contexts outermost; ``words`` as :func:`class_words` gives them."""
    return tuple(context.format(s=state.format(c=words)) for context in CONTEXTS for state in STATES)
