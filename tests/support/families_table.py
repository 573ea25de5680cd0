"""Prints docs/families.md: which method runs on which family, found by attaching each to a tiny model of each.

PYTHONPATH=tests python tests/support/families_table.py > docs/families.md
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.families import FAMILIES
from support.further_families import BUILDERS, NEEDS_TORCHVISION
from support.methods import VARIANTS

METHODS = {
    "frozen": "frozen",
    "projector": "projector",
    "mmpt": "mmpt",
    "mmpt-code": "mmpt, `visual_states=parameters`",
    "mmpt-apart": "mmpt, `interaction=false`",
    "vpt": "vpt",
    "vpt-shallow": "vpt, `visual_deep=false`",
    "prefix": "prefix",
    "dynamic": "dynamic",
    "dynamic-text": "dynamic, `visual_length=0`, `features=question`, `each=true`",
    "dynamic-image": "dynamic, `features=image`, `text_deep=false`",
    "lora": "lora",
    "moe_lora": "moe_lora",
    "adapter": "adapter",
    "adapter-both": "adapter, `kind=pfeiffer`, `placement=both`",
    "full": "full",
    "full-vision": "full, `train_vision=true`",
}
HEAD = """# Families of models, and which method runs on them

A backbone is any Hugging Face image-text model whose parts are found: the module with the configuration's
`vision_config`, what maps it to the width of the text, the decoder, and how patches become tokens. What a model does
not say of itself is an entry of `mmpt_bench/engine/models/families.py`, or of your own file:

```python
from mmpt_bench.engine.models.families import Family

FAMILIES = {"my_vl": Family("My VL", projector="visual_adapter")}
```

    mmpt-bench check mine.py --backbone ./my-vl-tiny
    mmpt-bench run --family mine.py --backbone ./my-vl --method mmpt --tasks mme

The file is part of the backbone's fingerprint. `mmpt-bench check ./my-vl-tiny` checks the parts that are found without
one. Refusals of mmpt, vpt and prefix are said by `--plan` too, from the configuration alone.

What a method needs of a model, beside the parts that all need:

| Method | Needs |
|---|---|
| frozen, projector, full | nothing more |
| vpt | vision blocks that take a row beside the patches |
| mmpt | the same, a decoder that takes rows beside words, and a connector that makes tokens of squares of patches |
| mmpt, `interaction=false` | the same without the connector |
| prefix | `self_attn.k_proj` and `v_proj` in each decoder layer |
| dynamic | as mmpt with `interaction=false`, and a tower that does not have all images in one sequence |
| adapter | blocks whose attention and MLP have names that it knows |
| lora, moe_lora | linear maps with known names; of layers that pass states between tokens, the last one alone |

These families are tested. A tick says that the method passes every check of `mmpt-bench check` on a random
tiny model of the family: it trains, generates, saves, loads and comes off again bit for bit, the parameter count is the
closed form, and no answer depends on padding, on its place in the batch or on the cache. Images of different shapes
share those batches. A number is a refusal, said before anything is trained, with the family's name.

Made by `PYTHONPATH=tests python tests/support/families_table.py`, which needs torchvision;
`pytest -m slow tests/engine/models/test_families.py` runs the checks.
"""
TORCHVISION = """
The processors of these need torchvision: `pip install torchvision`, of the version that is made for your torch.
"""
REFUSED = """
Refused, by their configuration alone:
"""
TAIL = """
A connector that makes one token of s x s patches makes one of s^2 prompts, averaged over an image's tiles:
[decision 0037](decisions/0037-interaction-through-merging-connectors.md).

MMPT's interaction tokens stand in the image slot, before the image tokens (`interaction_place=image`), and are to the
decoder what these are: where image tokens see each other both ways (PaliGemma), so do they. `interaction_place=front`
runs where `image` does.

Prompts in a decoder with a sliding window (Gemma 2 and 3, so PaliGemma 2 and Gemma 3; Cohere2, so Aya Vision and
Cohere2 Vision; Llama 4's chunks) are right as long as prompts and text fit the window together (4,096 tokens in
Gemma 2, 1,024 in Gemma 3 4B); a longer example is refused with its length. In Qwen2.5-VL, blocks that attend within
windows get a copy of their prompts in every window, and interaction is refused where the last block does, which sees
whole images in the released models.

In decoders with layers that pass states from token to token (Qwen3.5, LFM2-VL), prompts stand after the padding.

In evaluation, an image is read once for all questions about it, in every family but three: in PaliGemma, whose image
tokens see the question, only the tower's work is shared, and in Qwen3.5 and LFM2-VL nothing but the batch. `run` says
so, and `mmpt-bench check` compares the answers with those of a question at a time.

Llama 4 runs on transformers 5.24 only because a field that its own code asks for is given to it: that code fails
without (`mended` in `engine/models/loading.py`).

Weight-delta methods of the installed `peft` (`--method peft:NAME`) change the decoder's linear maps, which every family
has; they are tested on LLaVA alone.
"""


def refusal(method: str, backbone: Any) -> str | None:
    """Returns why a method does not attach to a backbone; None where it does."""
    try:
        VARIANTS[method]()().attach(backbone, 0).remove()
    except RequestError as error:
        return str(error)
    return None


def shared(reason: str, title: str) -> str:
    """Returns a refusal in the words that it has for every family."""
    return reason.replace(f"of this {title}", "of the family").replace(f"of {title}", "of the family")


def table(backbones: dict[str, Any], reasons: list[str]) -> list[str]:
    """Returns a row for all families whose methods run alike; new reasons are put after those there are."""
    rows: dict[str, list[str]] = {}
    for family, backbone in backbones.items():
        cells = []
        for method in METHODS:
            found = refusal(method, backbone)
            reason = found and shared(found, backbone.anatomy.title)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            cells.append("✓" if reason is None else f"{reasons.index(reason) + 1}")
        rows.setdefault(" | ".join(cells), []).append(family)
    head = [f"| | {' | '.join(METHODS.values())} |", "|---" * (len(METHODS) + 1) + "|"]
    return [*head, *(f"| {', '.join(families)} | {cells} |" for cells, families in rows.items())]


def page(first: dict[str, Any], with_torchvision: dict[str, Any]) -> str:
    """Returns the page for backbones by the name of their family."""
    reasons: list[str] = []
    lines = [HEAD, *table(first, reasons), TORCHVISION, *table(with_torchvision, reasons), ""]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    named: dict[str, list[str]] = {}
    for known in FAMILIES.values():
        named.setdefault(known.refused, []).append(known.title)
    refused = [f"- {', '.join(titles)}: {why}." for why, titles in named.items() if why]
    others = "- Models that encode text and decode it by two stacks, and models without a `vision_config`."
    return "\n".join([*lines, *notes, REFUSED, *refused, others, TAIL])


def main() -> None:
    """Prints the page."""
    from mmpt_bench.engine.models.backbone import load_backbone

    def made(builders: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for family, build in builders.items():
            with tempfile.TemporaryDirectory() as place:
                found[family] = load_backbone(str(build(Path(place))), device="cpu", offline=True)
        return found

    print(page(made(BUILDERS), made(NEEDS_TORCHVISION)), end="")


if __name__ == "__main__":
    main()
