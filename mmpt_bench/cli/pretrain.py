"""`mmpt-bench pretrain`: the embedded model, rebuilt or probed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from mmpt_bench.cli.options import BACKBONE, JSON, print_json


@click.command()
@click.option(
    "--folder",
    default="pretraining",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Checkpoints and result.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Of the language stage; by default as many as the shipped weights had."
)
@click.option(
    "--from",
    "base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of an earlier base to begin with: what fits of its weights is taken over, lessons are shorter.",
)
@click.option("--processes", default=2, show_default=True, type=click.IntRange(min=1), help="Each on one core.")
@click.option("--probe", is_flag=True, help="Train nothing: print what a model sees on fresh clean scenes.")
@BACKBONE
@JSON
def pretrain(
    folder: Path,
    seed: int,
    steps: int | None,
    base: Path | None,
    processes: int,
    probe: bool,
    backbone: str,
    as_json: bool,
) -> None:
    """Rebuild the embedded model's weights from a seed, with checkpoints; or probe a model."""
    if probe:
        from mmpt_bench.engine.models.backbone import load_backbone
        from mmpt_bench.engine.pretraining.probe import probe as look

        loaded = load_backbone(backbone)
        found = look(loaded.model, loaded.processor.tokenizer)
        if as_json:
            print_json(found)
        else:
            for skill, accuracy in found.items():
                click.echo(f"{skill:<12} {accuracy:.1%}")
        return
    from mmpt_bench.engine.pretraining.pretrain import Plan, plan_from
    from mmpt_bench.engine.pretraining.pretrain import pretrain as build_weights

    chosen = dataclasses.replace(Plan() if base is None else plan_from(base), seed=seed, processes=processes)
    weights = build_weights(dataclasses.replace(chosen, steps=steps) if steps is not None else chosen, folder)
    click.echo(f"Written: {weights}. Use it: `mmpt-bench run --backbone {weights}`.")
