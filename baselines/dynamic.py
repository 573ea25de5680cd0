"""Prompts that depend on image and question, after CoCoOp (arXiv:2203.05557) and IDPG (arXiv:2204.04497).

Every set of prompts is a static one plus a shift, which a bottleneck makes of the item: the textual prompts' of the
mean image token and the mean question token, the visual prompts' of the mean patch that enters their block. The papers
have CLIP and text models; what carries over is their generator. A gain proves that the item matters only beside the
controls in this file: `condition=static` has no generator and as many parameters in longer static prompts;
`condition=shuffled` trains the generator on the features of other examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt_bench import Method, RequestError
from mmpt_bench.engine.adapters.attachment import Group, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.prompts.plan import GeneratorPlan, PromptPlan


@dataclass(frozen=True)
class Dynamic(Method):
    """Deep prompts on both sides with a generator; its output starts at 0, so that training starts from static ones."""

    name: ClassVar[str] = "dynamic"
    color: ClassVar[str] = "#AA4499"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 3e-2)
    structures = (
        {},
        {"visual_length": 10, "text_length": 5},
        {"visual_length": 5, "text_length": 5},
    )

    visual_length: int = 20
    """Prompts in each vision block; 0 leaves the tower alone."""
    text_length: int = 10
    """Prompts in each decoder layer; 0 leaves the decoder alone."""
    text_deep: bool = True
    """A set before every layer, else one in front of the first, as in CoCoOp and the shallow IDPG."""
    size: int = 16
    """Width of the generator's bottleneck."""
    each: bool = False
    """A shift of its own for every prompt of a set (IDPG), else one for all of them (CoCoOp)."""
    features: Literal["both", "image", "question"] = "both"
    """What the textual prompts look at; with `image` alone, questions about an image still share its computation."""
    condition: Literal["own", "shuffled", "static"] = "own"
    """The item's own features; controls: in training those of a random example of the micro-batch, or no generator."""
    init: Literal["xavier", "normal"] = "xavier"
    """What the static prompts start as: xavier-uniform, or normal with a deviation of 0.02."""
    train_projector: bool = True
    projector_rate: float = 1.0
    """Learning rate of the projector, as a factor of the method's: LLaVA-1.5's recipe for LoRA has 0.1."""
    learning_rate: float = 7e-4
    """MMPT's, as a starting value: CoCoOp's 2e-3 is of plain gradient descent."""

    def __post_init__(self) -> None:
        """Raises RequestError for lengths or a size that train no prompt, and for what has no effect."""
        if min(self.visual_length, self.text_length) < 0 or self.visual_length + self.text_length == 0:
            raise RequestError(
                f"`visual_length` {self.visual_length} and `text_length` {self.text_length}: "
                "lengths are 0 or more, and one is above 0."
            )
        if self.size < 1 or not self.projector_rate > 0:
            raise RequestError(
                f"`size` {self.size} must be at least 1, `projector_rate` {self.projector_rate:g} above 0."
            )
        self.check_choices()
        idle = (
            ("features", not self.text_length and self.features != "both", "without textual prompts"),
            ("text_deep", not self.text_length and not self.text_deep, "without textual prompts"),
            ("projector_rate", not self.train_projector and self.projector_rate != 1.0, "where it is not trained"),
        )
        for name, is_idle, why in idle:
            if is_idle:
                raise RequestError(f"`{name}` has no effect {why}: leave `dynamic.{name}` out.")

    @property
    def one_image(self) -> str:
        """Returns that prompts are made of one image."""
        return "its prompts are made of one image and the question"

    @property
    def decoder_rows(self) -> int:
        """Returns how many rows stand in front of the decoder's sequence; of `static`, the most that there may be."""
        shifts = self.text_length if self.each else 1
        longer = self.condition == "static" and self.text_length > 0
        return self.text_length + (self.size * (shifts + 2) if longer else 0)

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts prompts and generator on the backbone, drawn from `seed` alone; prompts as those of `mmpt`."""
        from mmpt_bench.engine.prompts.hooks import attach_prompts

        made = None if self.condition == "static" else self._generator
        attachment = attach_prompts(backbone, self._plan(backbone.anatomy), seed, made)
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        return attachment.handle(self)

    def groups(self, anatomy: Anatomy) -> tuple[Group, ...]:
        """Returns the projector, where its learning rate is another one."""
        own = self.train_projector and self.projector_rate != 1.0
        return (Group(anatomy.projector, self.projector_rate),) if own else ()

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters: prompts, generator and projector."""
        plan = self._plan(anatomy)
        own = 0 if self.condition == "static" else self._generator.count(plan, anatomy)
        return plan.count(anatomy) + own + self.projector_count(anatomy)

    @property
    def _generator(self) -> GeneratorPlan:
        return GeneratorPlan(self.size, self.each, self.features, self.condition == "shuffled")

    def _plan(self, anatomy: Anatomy) -> PromptPlan:
        """Returns the static prompts: those that are shifted, or, of `static`, as many more as the generator costs."""
        plan = PromptPlan(self.visual_length, text=self.text_length, text_deep=self.text_deep, init=self.init)
        return self._generator.as_static(plan, anatomy) if self.condition == "static" else plan


METHOD = Dynamic
