"""CIDEr of captions, by pycocoevalcap (Vedantam et al. 2015, arXiv:1411.5726; CIDEr-D, as COCO's own evaluation).

A word weighs the more, the fewer images of the whole set have it in their references: the score does not follow from
sums over images, so it has no interval.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.functions import WholeOf
from mmpt_bench.evaluation.metrics import Declared

PERCENT = 100.0
"""Papers print CIDEr times 100; a caption that is each of its references scores 10 times that."""


def cider() -> WholeOf:
    """Returns CIDEr as a score of the whole set, in points of 1,000.

    Raises:
        RequestError: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise RequestError("CIDEr needs pycocoevalcap: `pip install 'mmpt-bench[captions]'`.") from error

    def score(samples: Sequence[Sample], answers: Sequence[str | None]) -> float:
        accepted = {sample.id: [words(one) for one in sample.accepted] for sample in samples}
        said = {sample.id: [words(answer or "")] for sample, answer in zip(samples, answers, strict=True)}
        mean, _ = Cider().compute_score(accepted, said)
        return PERCENT * float(mean)

    return WholeOf(score, Declared("points", high=10 * PERCENT, resampled=False))


def words(caption: str) -> str:
    """Returns the words of a caption in lower case, punctuation aside.

    COCO's evaluation has the Penn Treebank's tokenizer do this, in Java; it parts contractions ("dog 's"), which stay
    whole here.
    """
    return " ".join(re.findall(r"[\w'’-]+", caption.lower()))
