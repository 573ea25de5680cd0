"""A trained adapter is evaluated wholly, or refused in one sentence; the base is its old self afterwards."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import mmpt_bench as mb
from mmpt_bench.common.errors import BenchError, RequestError, UntrustedRecord
from mmpt_bench.engine.adapters.loading import IDLE
from mmpt_bench.engine.adapters.trial import attached, logits_of
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.methods.adapter_folder import accounted
from mmpt_bench.methods.method_catalog import method_of
from mmpt_bench.methods.peft_any import from_file
from mmpt_bench.methods.trained_adapter import adapter_entry
from mmpt_bench.mmpt import MMPT
from mmpt_bench.peft import KVPrefixConfig, MMPTConfig, VPTConfig
from mmpt_bench.records.recipe_file import read_recipe
from support.command import bench
from support.families import BUILDERS
from support.methods import method
from support.paths import CASES
from support.tiny import tiny_backbone

torch.set_num_threads(1)
TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
QV = ["q_proj", "v_proj"]
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside this checkout")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": QV, **fields})


def saved(backbone: Any, config: Any, folder: Path) -> Any:
    """Returns what PEFT made of a base and a configuration, every trained value moved, and saves it to `folder`."""
    torch.manual_seed(3)
    model = get_peft_model(copy.deepcopy(backbone.model), copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    return model


def plain(backbone: Any, folder: Path) -> torch.Tensor:
    """Returns the logits that PEFT itself gives."""
    model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), str(folder)).eval()
    return logits_of(dataclasses.replace(backbone, model=model))


def evaluated(backbone: Any, folder: Path, **how: Any) -> tuple[torch.Tensor, Any]:
    """Returns (logits, handle) of an adapter; the base's values and answers are the same to the bit afterwards."""
    before, answers = {n: v.clone() for n, v in backbone.model.state_dict().items()}, logits_of(backbone)
    try:
        with attached(method_of(adapter_entry(str(folder), True, **how), {}), backbone) as handle:
            assert not [n for n, p in backbone.model.named_parameters() if p.requires_grad]
            return logits_of(backbone), handle
    finally:
        after = backbone.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(value, before[name]) for name, value in after.items())
        assert torch.equal(logits_of(backbone), answers)


def rewritten(folder: Path, change: Any) -> None:
    """Replaces the file's tensors by what `change` returns for them."""
    tensors = {name: value.contiguous() for name, value in change(load_file(folder / TENSORS)).items()}
    save_file(tensors, folder / TENSORS, {"format": "pt"})


def renamed(folder: Path, *pairs: tuple[str, str]) -> None:
    """Replaces the first fitting beginning of each tensor's name."""

    def one(name: str) -> str:
        rest = name.removeprefix("base_model.model.")
        old, new = next(((old, new) for old, new in pairs if rest.startswith(old)), ("", ""))
        return f"base_model.model.{new}{rest.removeprefix(old)}"

    rewritten(folder, lambda tensors: {one(name): value for name, value in tensors.items()})


VALID = {
    "suffixes that hit blocks that are not read": lora(),
    "every bias": lora(bias="all"),
    "biases of targets": lora(bias="lora_only"),
    "dora": lora(use_dora=True),
    "pissa": lora(init_lora_weights="pissa"),
    "olora": lora(init_lora_weights="olora"),
    "embeddings": lora(target_modules=["embed_tokens", "q_proj"]),
    "all-linear": lora(target_modules="all-linear"),
    "saved whole": lora(modules_to_save=["lm_head", "multi_modal_projector"]),
    "tokens": lora(trainable_token_indices=[5, 6]),
    "parameters": lora(target_modules=[], target_parameters=["q_proj.weight"]),
    "ia3": IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    "mmpt": MMPTConfig(),
    "vpt": VPTConfig(),
    "prefix": KVPrefixConfig(),
}


@pytest.mark.parametrize("name", VALID)
def test_adapter_of_peft_answers_as_in_peft_and_leaves_no_trace(backbone: Any, tmp_path: Path, name: str) -> None:
    trained = sum(p.numel() for p in saved(backbone, VALID[name], tmp_path).parameters() if p.requires_grad)
    found, handle = evaluated(backbone, tmp_path)
    assert torch.equal(found, plain(backbone, tmp_path))
    assert not torch.equal(found, logits_of(backbone))
    assert handle.size == trained


def test_tensors_of_blocks_that_are_not_read_are_noted(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    assert "4 of its tensors lie in vision blocks that nothing reads" in evaluated(backbone, tmp_path)[1].notes[-1]


OLD = {
    "LLaVA-1.5": (
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.encoder.", "vision_tower.vision_model.encoder."),
        ("lm_head.", "language_model.lm_head."),
    ),
    "Qwen2-VL": (("model.language_model.", "model."), ("model.visual.", "visual.")),
}
"""What modules are called here, and in transformers 4.51."""


@pytest.mark.parametrize("config", [lora(modules_to_save=["lm_head"]), VALID["ia3"]], ids=["lora", "ia3"])
@pytest.mark.parametrize("family", OLD)
def test_names_of_an_older_transformers_are_mapped_and_said(tmp_path: Path, family: str, config: Any) -> None:
    own = load_backbone(str(BUILDERS[family](tmp_path / "base")), device="cpu", offline=True)
    saved(own, config, tmp_path / "adapter")
    wanted = plain(own, tmp_path / "adapter")
    renamed(tmp_path / "adapter", *OLD[family])
    found, handle = evaluated(own, tmp_path / "adapter")
    assert torch.equal(found, wanted)
    assert any("names of another transformers: `" in note for note in handle.notes)


def test_names_that_fit_nothing_are_refused_with_the_first_of_both_sides(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(target_modules=["up_proj"]), tmp_path)
    renamed(tmp_path, ("model.language_model.", "model."))
    with pytest.raises(RequestError) as refusal:
        evaluated(backbone, tmp_path)
    assert "its tensor `model.layers.0.mlp.up_proj.lora_A.weight` has no place" in str(refusal.value)
    assert "the place `model.language_model.layers.0.mlp.up_proj.lora_A.weight` has no tensor" in str(refusal.value)


FIRST = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_"
FAULTS: dict[str, tuple[Any, str]] = {
    "one too many and one too few": (
        lambda t: {n.replace(f"{FIRST}A", f"{FIRST}C"): v for n, v in t.items()},
        r"lora_C.weight` has no place .*lora_A.weight` has no tensor",
    ),
    "one too few": (lambda t: {n: v for n, v in t.items() if not n.startswith(f"{FIRST}B")}, "has no tensor"),
    "one too many": (lambda t: {**t, f"{FIRST}Q": torch.zeros(1)}, "has no place"),
    "another shape": (lambda t: {**t, f"{FIRST}A.weight": t[f"{FIRST}A.weight"][:1]}, r"has shape \(1, 32\)"),
    "turned": (lambda t: {**t, f"{FIRST}B.weight": t[f"{FIRST}B.weight"].T}, "has shape"),
    "not finite": (lambda t: {**t, f"{FIRST}A.weight": t[f"{FIRST}A.weight"] * float("nan")}, "not finite"),
    "whole numbers": (lambda t: {**t, f"{FIRST}A.weight": t[f"{FIRST}A.weight"].to(torch.int8)}, "int8"),
    "nothing": (lambda t: {}, "has no tensor"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_adapter_that_does_not_fit_wholly_is_refused(backbone: Any, tmp_path: Path, name: str) -> None:
    change, message = FAULTS[name]
    saved(backbone, lora(), tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(RequestError, match=message):
        evaluated(backbone, tmp_path)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_refusal_gives_the_base_back_where_peft_took_a_part_out_of_it(backbone: Any, tmp_path: Path, init: str) -> None:
    saved(backbone, lora(init_lora_weights=init), tmp_path)
    rewritten(tmp_path, FAULTS["one too few"][0])
    with pytest.raises(RequestError, match="has no tensor"):
        evaluated(backbone, tmp_path)


def edited(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | fields))


def test_adapter_that_is_switched_off_is_refused(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    edited(tmp_path, lora_alpha=0)
    with pytest.raises(RequestError, match="no logit of a probe differs"):
        evaluated(backbone, tmp_path)


@pytest.mark.parametrize("ours", [False, True])
def test_untrained_adapter_is_the_base_and_says_so(backbone: Any, tmp_path: Path, ours: bool) -> None:
    if ours:
        with attached(method("lora")(), backbone) as handle:
            handle.save(tmp_path)
    else:
        get_peft_model(copy.deepcopy(backbone.model), lora()).save_pretrained(tmp_path)
    found, handle = evaluated(backbone, tmp_path)
    assert torch.equal(found, logits_of(backbone))
    assert IDLE in handle.notes


def test_trained_tokens_that_the_probe_does_not_ask_are_no_fault(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[63]), tmp_path)
    found, _ = evaluated(backbone, tmp_path)
    assert torch.equal(found, plain(backbone, tmp_path))


def test_another_class_of_base_is_refused_unless_it_may_be_and_then_noted(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    other = {"base_model_class": "LlavaNextForConditionalGeneration", "parent_library": "transformers"}
    edited(tmp_path, auto_mapping=other, base_model_name_or_path="llava-hf/llava-v1.6-vicuna-7b-hf")
    with pytest.raises(RequestError, match=r"LlavaNextForConditionalGeneration.*--other-base"):
        evaluated(backbone, tmp_path)
    note = evaluated(backbone, tmp_path, other_base=True)[1].notes[0]
    assert "`llava-hf/llava-v1.6-vicuna-7b-hf` of class `LlavaNextForConditionalGeneration`" in note


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("llava-hf/llava-1.5-13b-hf", "`llava-hf/llava-1.5-13b-hf`"),
        ("/home/ann/secret/llava", "`llava`"),
        ("", "no base"),
    ],
)
def test_another_name_of_the_base_is_noted_without_its_folders(
    backbone: Any, tmp_path: Path, name: str, note: str
) -> None:
    saved(backbone, lora(), tmp_path)
    assert not [n for n in evaluated(backbone, tmp_path)[1].notes if "base" in n]
    edited(tmp_path, base_model_name_or_path=name)
    said = evaluated(backbone, tmp_path)[1].notes[0]
    assert note in said
    assert "ann" not in said


def test_our_adapter_of_another_base_is_refused_unless_it_may_be(backbone: Any, tmp_path: Path) -> None:
    other = dataclasses.replace(backbone, fingerprint="0" * 64, name="owner/other")
    with attached(method("projector")(), other) as handle:
        for parameter in handle.trainable.values():
            parameter.detach().add_(0.05)
        handle.save(tmp_path)
    with pytest.raises(RequestError, match="was trained on backbone `owner/other`"):
        evaluated(backbone, tmp_path)
    assert "another base, `owner/other`" in evaluated(backbone, tmp_path, other_base=True)[1].notes[0]


@pytest.mark.parametrize("states", ["output", "parameters"])
def test_our_adapter_of_an_earlier_version_stands_in_front(backbone: Any, tmp_path: Path, states: str) -> None:
    made = MMPT(visual_length=3, text_length=2, interaction_place="front", visual_states=states)  # type: ignore[arg-type]
    with attached(made, backbone) as handle:
        for parameter in handle.trainable.values():
            parameter.detach().add_(0.05)
        wanted = logits_of(backbone)
        handle.save(tmp_path)
    with safe_open(tmp_path / TENSORS, "pt") as stream:
        header = json.loads(stream.metadata()["mmpt_bench"])
    assert header["params"].pop("interaction_place") == "front"
    save_file(load_file(tmp_path / TENSORS), tmp_path / TENSORS, {"mmpt_bench": json.dumps(header)})
    assert torch.equal(evaluated(backbone, tmp_path)[0], wanted)


KNOWN = ["README.md", "tokenizer.json", "trainer_state.json", "optimizer.pt", "rng_state_0.pth", "training_args.bin",
         ".cache/x", "merges.txt", "LICENSE", "tokenizer.model", "spiece.model", ".git/lfs/objects/ab"]  # fmt: skip


STRAYS = [
    "adapter_model.bin", "non_lora_trainables.bin", "mm_projector.safetensors", "more/extra.pt", "weights",
    ".extra.safetensors", ".hidden/adapter_model.safetensors", ".adapter.npz", "adapter_model.safetensors.index.json",
    "pytorch_model.bin.index.json", "a.ckpt", "a.npz", "a.gguf", "A.GGUF", "a.npy", "a.h5", "flax_model.msgpack",
    "a.onnx", "lora.model", "a.pkl", "adapter_model-00002-of-00002.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("stray", STRAYS)
def test_weights_beside_the_adapter_are_refused(stray: str) -> None:
    assert accounted([CONFIG, TENSORS, *KNOWN], "mine") == []
    with pytest.raises(RequestError, match=re.escape(f"`mine` holds `{stray}`")):
        accounted([CONFIG, TENSORS, *KNOWN, stray], "mine")


def test_other_adapters_in_the_folder_are_said_and_their_strays_refused(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    saved(backbone, lora(), tmp_path / "checkpoint-5")
    assert "not read: checkpoint-5" in evaluated(backbone, tmp_path)[1].notes[0]
    (tmp_path / "checkpoint-5" / "projector.bin").write_bytes(b"")
    with pytest.raises(RequestError, match=r"holds `checkpoint-5/projector\.bin`"):
        adapter_entry(str(tmp_path), True)


def test_a_link_to_a_folder_is_not_passed_over(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "projector.bin").write_bytes(b"")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="holds `more`, which is not read"):
        adapter_entry(str(tmp_path / "a"), True)


def test_a_mark_of_byte_order_changes_nothing_of_an_adapter(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    wanted = evaluated(backbone, tmp_path)[0]
    text = (tmp_path / CONFIG).read_bytes()
    (tmp_path / CONFIG).write_bytes(b"\xef\xbb\xbf" + text)
    assert torch.equal(evaluated(backbone, tmp_path)[0], wanted)
    assert from_file(tmp_path / CONFIG)[0] == "LORA"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
DAMAGED: dict[str, tuple[str, bytes | int, str]] = {
    "a pointer for weights": (TENSORS, POINTER, "pointer of git-LFS"),
    "a pointer for the configuration": (CONFIG, POINTER, "pointer of git-LFS"),
    "cut weights": (TENSORS, 900, "is damaged"),
    "a cut header": (TENSORS, 40, "is damaged"),
    "no weights": (TENSORS, b"", "is damaged"),
    "a page": (TENSORS, b"<!doctype html><html>" * 99, "is damaged"),
    "a cut configuration": (CONFIG, 50, "is no JSON"),
    "a binary configuration": (CONFIG, b"\xff\xfe\x00" * 9, "is no JSON"),
    "a deep configuration": (CONFIG, b"[" * 100_000, "is no JSON"),
    "a list": (CONFIG, b"[1]", "holds no fields"),
    "no type": (CONFIG, b"{}", "no `peft_type`"),
    "a type that there is not": (CONFIG, b'{"peft_type": "MAGIC"}', "does not read"),
    "a type that is none": (CONFIG, b'{"peft_type": {"a": 1}}', "no `peft_type`"),
    "fields of other types": (CONFIG, b'{"peft_type": "LORA", "r": "two", "target_modules": [1]}', "LORA|read"),
    "a bad pattern": (CONFIG, b'{"peft_type": "LORA", "target_modules": "(", "r": 2}', "LORA does not fit"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_one_sentence(backbone: Any, tmp_path: Path, name: str) -> None:
    file, content, message = DAMAGED[name]
    saved(backbone, lora(), tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(BenchError, match=message) as refusal:
        evaluated(backbone, tmp_path)
    assert len(str(refusal.value)) < 500
    assert "\n" not in str(refusal.value)


def headed(folder: Path, text: str) -> None:
    """Makes PEFT's adapter say in its header what mmpt-bench would have written."""
    save_file(load_file(folder / TENSORS), folder / TENSORS, {"mmpt_bench": text})


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"method": 3, "params": {}, "backbone": "", "backbone_fingerprint": ""}']
)
def test_header_in_no_known_form_is_refused(backbone: Any, tmp_path: Path, text: str) -> None:
    saved(backbone, lora(), tmp_path)
    headed(tmp_path, text)
    with pytest.raises(UntrustedRecord, match="no known form"):
        adapter_entry(str(tmp_path), True)


EVIL = "open(__file__.replace('.py', '.ran'), 'w').close()\nMETHOD = None\n"


@pytest.mark.parametrize(
    "name", ["{evil}", "{evil},lora", "evil", "./evil.py", "all", "peft:LORA", "{json}", "peft-../x"]
)
def test_name_in_a_header_or_a_recipe_runs_and_reads_no_file(
    backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil.py"
    evil.write_text(EVIL)
    text = name.format(evil=evil, json=tmp_path / "a" / CONFIG)
    saved(backbone, lora(), tmp_path / "a")
    made_by = {"method": text, "params": {}, "backbone": "x", "backbone_fingerprint": backbone.fingerprint}
    headed(tmp_path / "a", json.dumps(made_by))
    with pytest.raises(RequestError, match="There is no method"):
        mb.plan(adapter=str(tmp_path / "a"), tasks="mnist")
    recipe = dataclasses.replace(read_recipe(_recipe(tmp_path)), method=text)
    (tmp_path / "recipe.yaml").write_text(json.dumps(dataclasses.asdict(recipe)))
    with pytest.raises(RequestError, match="There is no method"):
        mb.plan(recipe=tmp_path / "recipe.yaml", tasks="mnist")
    assert not evil.with_suffix(".ran").exists()


def _recipe(folder: Path) -> Path:
    text = (
        "backbone: embedded\nbackbone_fingerprint: a\ncorpus: embedded\ncorpus_fingerprint: b\nmethod: lora\n"
        "params: {}\nbudget: {}\nseed: 0\n"
    )
    (folder / "plain.yaml").write_text(text)
    return folder / "plain.yaml"


@pytest.mark.parametrize("how", ["adapter", "method"])
def test_configuration_that_names_a_module_imports_none(
    backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "megatron_evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    saved(backbone, lora(), tmp_path / "a")
    edited(tmp_path / "a", megatron_config={"a": 1}, megatron_core="megatron_evil")
    named: dict[str, Any] = (
        {"adapter": str(tmp_path / "a")} if how == "adapter" else {"method": str(tmp_path / "a" / CONFIG)}
    )
    with pytest.raises(RequestError, match="megatron"):
        mb.plan(tasks="mnist", **named)
    assert not (tmp_path / "megatron_evil.ran").exists()


def test_split_by_chance_is_refused(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(init_lora_weights="pissa_niter_4"), tmp_path)
    with pytest.raises(RequestError, match="by chance"):
        adapter_entry(str(tmp_path), True)


def test_adapter_that_changes_while_it_is_planned_is_refused(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path)
    made = method_of(adapter_entry(str(tmp_path), True), {})
    rewritten(tmp_path, lambda tensors: {name: value * 2 for name, value in tensors.items()})
    with pytest.raises(RequestError, match="changed while"):
        made.attach(backbone, 0)


def test_training_that_is_not_known_has_a_board_of_its_own_and_one_that_is_known_has_not(tmp_path: Path) -> None:
    common: dict[str, Any] = {"tasks": "mnist", "limit": 2, "steps": 1, "batch_size": 2, "out": tmp_path / "results"}
    mb.run(method="lora,frozen", **common)
    (run,) = (tmp_path / "results").glob("runs/lora-*")
    shutil.copytree(run / "adapter", tmp_path / "alone")
    mb.run(adapter=str(run / "adapter"), **common)
    results = mb.run(adapter=str(tmp_path / "alone"), **common)
    records = {record.method: record for record in results.records}
    known, unknown = records[f"adapter-{run.name}"], records["adapter-alone"]
    assert known.track == records["lora"].track == records["frozen"].track
    assert (unknown.corpus, unknown.budget) == ("unknown", {})
    boards = {board.track: board for board in results.write_leaderboard().boards}
    assert [row.label for row in boards[unknown.track].rows] == ["adapter-alone"]
    assert "not known" in boards[unknown.track].notes[0]
    # Under another budget, what is known still stands where it was trained.
    mb.run(adapter=str(run / "adapter"), **{**common, "steps": 2})
    assert len({record.track for record in results.records}) == 2
    # Another budget in the recipe than that of these weights: training.json knows the recipe's key.
    text = (run / "recipe.yaml").read_text()
    assert "steps: 1" in text
    (run / "recipe.yaml").write_text(text.replace("steps: 1", "steps: 400"))
    assert adapter_entry(str(run / "adapter"), True).make().found.recipe is None
    (run / "recipe.yaml").write_text(text)
    # A mark of byte order changes nothing, and a file that is no object is refused.
    for name in ("recipe.yaml", "adapter/training.json"):
        (run / name).write_bytes(b"\xef\xbb\xbf" + (run / name).read_bytes())
    assert adapter_entry(str(run / "adapter"), True).make().found.recipe is not None
    kept = (run / "adapter" / "training.json").read_bytes()
    for damage in (b"[]", b"3", b"{"):
        (run / "adapter" / "training.json").write_bytes(damage)
        with pytest.raises(UntrustedRecord, match=r"`training.json` of the adapter `adapter` is damaged"):
            adapter_entry(str(run / "adapter"), True)
    (run / "adapter" / "training.json").write_bytes(kept)
    # A recipe that is not of these weights tells nothing of them.
    (run / "recipe.yaml").write_text(re.sub(r"\br: \d+", "r: 99", (run / "recipe.yaml").read_text()))
    assert adapter_entry(str(run / "adapter"), True).make().found.recipe is None


@needs_cases
def test_shared_case_of_names_that_fit_nothing(tmp_path: Path) -> None:
    case = CASES / "01-adapter-names-fit-nothing"
    common: dict[str, Any] = {"tasks": "mme", "limit": 2, "out": tmp_path}
    with pytest.raises(RequestError, match=r"has no place .* has no tensor"):
        mb.run(adapter=str(case / "trained-on-the-text-model-alone"), **common)
    assert not mb.load_results(tmp_path).records
    (record,) = mb.run(adapter=str(case / "trained-on-the-whole-model"), **common).records
    assert (record.status, record.notes) == ("ok", "its configuration names another base, `tiny-llava`")


@needs_cases
def test_shared_case_of_every_vision_layer(tmp_path: Path) -> None:
    case = CASES / "02-adapter-with-all-vision-layers-refused"
    named: dict[str, Any] = {"backbone": str(case / "tiny-llava"), "data": case / "data", "tasks": "pope"}
    (record,) = mb.run(adapter=str(case / "lora-q-v"), out=tmp_path, **named).records
    assert record.status == "ok"
    assert "lie in vision blocks that nothing reads" in record.notes


@needs_cases
def test_shared_case_of_another_base(tmp_path: Path) -> None:
    case = str(CASES / "12-adapter-of-another-base" / "trained-on-llava-next")
    with pytest.raises(RequestError, match="--other-base"):
        mb.run(adapter=case, tasks="mme", limit=2, out=tmp_path)
    results = mb.run(adapter=case, other_base=True, tasks="mme", limit=2, out=tmp_path)
    assert "LlavaNextForConditionalGeneration" in results.records[0].notes
    assert "LlavaNextForConditionalGeneration" in results.write_leaderboard().boards[0].notes[1]


@pytest.mark.slow
def test_command_line_evaluates_an_adapter_of_our_methods_that_peft_saved(tmp_path: Path) -> None:
    saved(load_backbone("embedded", device="cpu"), KVPrefixConfig(), tmp_path / "mine")
    told = bench("run", "--adapter", "mine", "--tasks", "mnist", "--limit", "2", cwd=tmp_path)
    assert "adapter-mine" in told.stdout


def test_an_adapter_that_changes_between_plan_and_load_is_refused(backbone: Any, tmp_path: Path) -> None:
    saved(backbone, lora(), tmp_path / "a")
    made, tensors = method_of(adapter_entry(str(tmp_path / "a"), True), {}), tmp_path / "a" / TENSORS
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(RequestError, match="`a` changed while the run was planned"), attached(made, backbone):
        pass
