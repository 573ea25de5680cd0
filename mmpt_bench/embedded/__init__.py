"""The generated worlds and the miniature suite, and the weights that ship with the package.

How the weights are trained is in `engine/pretraining/`.
Start with suite.py (what is asked), then world.py (what is drawn).
"""

from __future__ import annotations

from pathlib import Path


def weights_dir() -> Path:
    """Returns the folder of the shipped model, in Hugging Face form."""
    return Path(__file__).parent / "weights"
