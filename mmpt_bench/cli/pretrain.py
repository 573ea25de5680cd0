"""`mmpt-bench pretrain`: the embedded model, rebuilt or probed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click


def pretrain(
    folder: Path, seed: int, steps: int | None, processes: int, probe: bool, backbone: str, as_json: bool
) -> int:
    """Rebuilds the embedded weights, or prints what a model sees on fresh clean scenes."""
    if probe:
        from mmpt_bench.engine.models.backbone import load_backbone
        from mmpt_bench.engine.pretraining.probe import probe as look

        loaded = load_backbone(backbone)
        found = look(loaded.model, loaded.processor.tokenizer)
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            for skill, accuracy in found.items():
                click.echo(f"{skill:<12} {accuracy:.1%}")
        return 0
    from mmpt_bench.engine.pretraining.pretrain import Plan
    from mmpt_bench.engine.pretraining.pretrain import pretrain as build_weights

    chosen = dataclasses.replace(Plan(), seed=seed, processes=processes)
    weights = build_weights(dataclasses.replace(chosen, steps=steps) if steps is not None else chosen, folder)
    click.echo(f"Written: {weights}. Use it: `mmpt-bench run --backbone {weights}`.")
    return 0
