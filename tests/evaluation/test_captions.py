"""CIDEr of captions: worked out by hand on two images, and refused in one line where its package is not there."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.captions import cider, words
from support.paths import ROOT

PICTURE = LazyImage("p", lambda: Image.new("RGB", (2, 2)))
ASKED = [
    Sample("0", PICTURE, "?", (), "a red ring in it", cluster="0"),
    Sample("1", PICTURE, "?", (), "two big dogs run fast", cluster="1"),
]


def test_cider_of_two_images_by_hand() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    score = cider().score
    # No n-gram is shared by the two references, so every weight is ln 2: cosines are counts of shared n-grams.
    assert score(ASKED, ["A red ring in it.", "two big dogs run fast"]) == pytest.approx(1000)
    assert score(ASKED, [None, None]) == 0
    # "a red ring" has 3 words of 5, 2 pairs of 4, 1 triple of 3 and no four; cosine k / sqrt(k m), with a penalty of
    # exp(-d^2 / 72) for the two pairs that it is shorter by. One of two images has it.
    by_hand = (3 / 15**0.5 + 2 / 8**0.5 + 1 / 3**0.5) / 4 * 2.718281828459045 ** (-(2**2) / 72)
    assert score(ASKED, ["a red ring", "nothing"]) == pytest.approx(1000 * by_hand / 2)


def test_words_of_a_caption() -> None:
    assert words("A dog's ball, well-worn .") == "a dog's ball well-worn"


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(RequestError, match=r"pip install 'mmpt-bench\[captions\]'"):
        cider()


def test_the_example_passes_its_checks() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    import mmpt_bench as mb

    results = mb.check(str(ROOT / "examples" / "captions.py"))
    assert [result for result in results if not result.ok] == []
