"""Which tasks of a training mixture share pictures or labels with an evaluated one, told by their names.

The names are those of Vision-Flan's entries (`task_name`), as they stand in its authors' site (vision-flan.github.io,
data.json) and in code that trains on it. Where a name does not tell its pictures, the authors' preprocessing does
(github.com/VT-NLP/MultiInstruct, data_preprocessor): `ITM`, `image_text_selection` and `image_caption` are of COCO
2014, `VQA` and `question_image_match` of VQAv2, the other `VQA_...` of TDIUC and Visual Genome.
"""

from __future__ import annotations

import re

PARTS = (
    "cinic", "cifar", "mnist", "stl10",
    "flickr30k", "coco", "vqav2", "okvqa", "vqae", "visdial", "vqg", "senticap", "exdark", "stvqa",
    "visualgenome", "gqa", "tdiuc", "refcoco",
    "vsr", "snli", "pope",
)  # fmt: skip
"""What a name holds, letters and digits alone. CINIC-10 contains CIFAR-10, and MNIST-M the digits of MNIST; STL-10 has
CIFAR's classes. Flickr30k has the pictures of SNLI-VE; COCO those of POPE, VSR and part of MME, and VQAv2, OK-VQA,
A-OKVQA, VQA-E, Visual Dialog and SentiCap are built on it, as are parts of VQG, ExDark, ST-VQA and Visual Genome, which
GQA is on."""
WHOLE = (
    "ITM", "image_caption", "image_text_selection", "question_image_match", "VQA", "VQA_activity_recognition",
    "VQA_attribute", "VQA_color", "VQA_counting", "VQA_object_presence", "VQA_object_recognition",
    "VQA_positional_reasoning", "VQA_scene_recognition", "VQA_sentiment_understanding", "VQA_sport_recognition",
    "VQA_utility_affordance", "VisDA-2017+image_classification", "VisDA-2017+object_classification_validation",
)  # fmt: skip
"""Names that do not tell it: COCO, by the preprocessing above; and VisDA-2017, whose real domain is cut out of COCO
(Peng et al. 2017, arXiv:1710.06924) while the third of its tasks, `object_classification_train`, is of renderings."""


def is_evaluated(task_name: str) -> bool:
    """Returns whether a training task shares pictures or labels with an evaluated one, by its name."""
    plain = _plain(task_name)
    return plain in _WHOLE or any(part in plain for part in PARTS)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_WHOLE = frozenset(map(_plain, WHOLE))
