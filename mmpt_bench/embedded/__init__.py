"""The embedded default: worlds, language, pre-training, and the weights that ship with the package."""

from __future__ import annotations

from pathlib import Path


def weights_dir() -> Path:
    """Returns the folder of the shipped model, in Hugging Face form."""
    return Path(__file__).parent / "weights"
