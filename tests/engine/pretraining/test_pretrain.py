"""Pre-training: what it makes loads as any backbone does, and an interruption changes nothing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.engine.pretraining import model as embedded_model
from mmpt_bench.engine.pretraining.curriculum import PHASES
from mmpt_bench.engine.pretraining.pretrain import Plan, learning_rate, pretrain
from mmpt_bench.engine.pretraining.probe import probe
from mmpt_bench.sources.weights import folder_fingerprint

SMALL = Plan(
    vision_steps=2,
    vision_batch=8,
    naming_steps=2,
    steps=3,
    batch=2,
    decay_steps=2,
    processes=1,
    checkpoint_every=1,
    report_every=1,
)


def quiet(_message: str) -> None:
    """Says nothing."""


def look_for_meet(_message: str) -> None:
    """Writes down where the processes meet; called while they do."""
    Path("seen").write_text("\n".join(str(path) for path in (Path("made/meet"), Path("/meet")) if path.exists()))


@pytest.mark.slow
def test_an_interrupted_pretraining_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = pretrain(SMALL, tmp_path / "whole", quiet)

    def stop(message: str) -> None:
        if message.startswith("language: step 2/3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SMALL, tmp_path / "cut", stop)
    cut = pretrain(SMALL, tmp_path / "cut", quiet)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_what_it_makes_is_loaded_like_any_other_backbone_and_can_be_probed(tmp_path: Path) -> None:
    backbone = load_backbone(str(pretrain(SMALL, tmp_path, quiet)), offline=True)
    assert 4_000_000 < sum(p.numel() for p in backbone.model.parameters()) < 8_000_000
    found = probe(backbone.model, backbone.processor.tokenizer, n=4)
    assert {"existence", "count", "color", "location", "relation", "?digit"} <= found.keys()
    assert all(0 <= share <= 1 for share in found.values())


def test_an_earlier_base_is_taken_over_where_it_fits(tmp_path: Path) -> None:
    """Its language model whole, the vectors of its words by word; what depends on the patches begins anew."""
    earlier, new = embedded_model.build_model(1), embedded_model.build_model(2)
    embedded_model.save(earlier, tmp_path)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    ring, heart = vocabulary["ring"], vocabulary["heart"]
    vocabulary["ring"], vocabulary["heart"] = heart, ring
    vocabulary["stranger"] = vocabulary.pop("winter")
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vision_config"]["patch_size"] == embedded_model.PATCH
    assert embedded_model.take_over(new, tmp_path) == []
    old, now = ({k: v.half().float() for k, v in model.state_dict().items()} for model in (earlier, new))
    words = "model.language_model.embed_tokens.weight"
    knows = embedded_model.build_tokenizer().get_vocab()
    for name in old:
        if name not in (words, "lm_head.weight"):
            assert torch.equal(now[name], old[name]), name
    for table in (words, "lm_head.weight"):
        assert torch.equal(now[table][ring], old[table][heart])
        assert torch.equal(now[table][knows["star"]], old[table][knows["star"]])
        assert torch.equal(new.state_dict()[table][knows["winter"]], before[table][knows["winter"]])


@pytest.mark.slow
def test_a_base_begun_from_an_earlier_one_names_it_by_its_fingerprint(tmp_path: Path) -> None:
    first = pretrain(SMALL, tmp_path / "first", quiet)
    second = pretrain(dataclasses.replace(SMALL, base=first, seed=1), tmp_path / "second", quiet)
    story = json.loads((second / "pretraining.json").read_text())
    assert story["base"] == folder_fingerprint(first)
    assert json.loads((first / "pretraining.json").read_text())["base"] is None
    assert str(tmp_path) not in (second / "pretraining.json").read_text()


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 1.0, 10, 20) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[80] == 1.0
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_the_curriculum_is_in_order() -> None:
    assert [phase.start for phase in PHASES] == sorted({phase.start for phase in PHASES})
    assert PHASES[-1].things == (1, 2, 3, 4)


@pytest.mark.slow
def test_two_processes_meet_in_the_folder_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrain(dataclasses.replace(SMALL, processes=2), Path("made"), look_for_meet)
    assert (tmp_path / "seen").read_text() == "made/meet"


@pytest.mark.slow
def test_the_shipped_model_sees() -> None:
    backbone = load_backbone("embedded")
    found = probe(backbone.model, backbone.processor.tokenizer)
    at_least = {
        "existence": 0.97,
        "count": 0.97,
        "color": 0.97,
        "location": 0.97,
        "relation": 0.97,
        "claim_text": 0.96,
        "claim_sum": 0.97,
        "?digit": 0.95,
        "?sum": 0.98,
        "?count": 0.96,
        "?text": 0.98,
        "?big": 0.98,
    }
    assert {skill: found[skill] for skill, least in at_least.items() if found[skill] < least} == {}
