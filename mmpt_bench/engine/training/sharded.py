"""`--parallel fsdp2`: ranks that hold a part of the decoder, its gradients and the optimizer each (`fully_shard`)."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpt_bench.common.errors import MachineError, RequestError, RunFailed
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.engine.training.memory import shortage
from mmpt_bench.engine.training.parallel import Cut, Together

T = TypeVar("T")


class Sharded(Together):
    """Ranks of torchrun that hold a part of the decoder each, of its gradients and of the optimizer (`fsdp2`).

    All ranks compute the same number of micro-batches, as weights are gathered in each; one that has fewer computes an
    example again, which counts for nothing. Memory that runs out on one rank ends the job: the others are in the
    middle of gathering, and cannot begin again.
    """

    way = "fsdp2"
    _model: nn.Module | None = None

    def placed(self, backbone: Backbone, handle: Handle) -> None:
        """Shards the model; a vision tower stays whole on each rank as far as it is frozen.

        Trained parameters in half precision become float32, each rank a part, and are rounded as they are gathered.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        model, anatomy = backbone.model, backbone.anatomy
        half = {p for p in handle.trainable.values() if p.dtype in (torch.float16, torch.bfloat16)}
        for parameter in half:
            parameter.data = parameter.data.float()
        places = {id(p): _place(model, name) for name, p in model.named_parameters()}
        found = {name: places[id(p)] for name, p in handle.trainable.items()}
        mesh = init_device_mesh(self.device.type, (self.count,))
        frozen = {p for p in model.get_submodule(anatomy.vision).parameters() if not p.requires_grad}
        self._model = _Whole(model)
        rounded = MixedPrecisionPolicy(getattr(torch, backbone.dtype), torch.float32, cast_forward_inputs=False)
        for module in (*map(model.get_submodule, anatomy.decoder_layers), self._model):
            for part, is_rounded in _groups(module, half, frozen):
                policy = rounded if is_rounded else MixedPrecisionPolicy()
                fully_shard(part, mesh=mesh, mp_policy=policy, ignored_params=frozen)
        handle.trainable.update({name: getattr(module, leaf) for name, (module, leaf) in found.items()})
        _check_trains(model, handle)

    def let_go(self) -> None:
        """Frees the sharded model."""
        self._model = None

    def begun(self, masters: Masters, seed: int) -> None:
        """Seeds dropout, for each rank on its own."""
        torch.manual_seed(derive(seed, f"dropout {self.rank}" if self.rank else "dropout"))

    def share(self, examples: Sequence[T]) -> list[T]:
        """Returns every so manieth example; one that does not count where there are fewer than ranks."""
        own = super().share(examples)
        self.has_share = bool(own)
        return own or list(examples[:1])

    def passes(self, cut: Cut) -> list[tuple[list[int], bool]]:
        """Returns as many micro-batches as any rank has."""
        n = int(self._reduce([float(len(cut))], dist.ReduceOp.MAX)[0])
        own = [(chosen, self.has_share) for chosen in cut]
        return own + [(cut[0][:1], False)] * (n - len(own))

    def within(self, work: Callable[[], T]) -> T:
        """Returns what work makes, computed inside of the sharded model."""
        assert self._model is not None
        made: T = self._model(work)
        return made

    def fault(self, error: Exception | None) -> Exception | None:
        """Raises what went wrong on this rank, and so ends the job."""
        if error is not None and (why := shortage(error)) is not None:
            raise MachineError(
                f"rank {self.rank}: out of memory: {why}. Ranks that share weights cannot cut a step smaller: begin "
                "with a smaller `--micro-batch`, or with more ranks."
            ) from error
        return error

    def reduced(self, masters: Masters) -> None:
        """Makes averages that `fully_shard` left in the gradients sums."""
        for parameter in masters.by_name.values():
            if parameter.grad is not None:
                parameter.grad *= self.count


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> Any:
    """Writes sharded tensors, each rank its parts to files `__<rank>_<n>.distcp`; returns what `read_shards` must know.

    All ranks call this. A part goes through main memory by itself.

    Raises:
        OSError: a rank cannot write, on all ranks alike.
    """
    import torch.distributed.checkpoint as dcp

    try:
        metadata = dcp.save(dict(tensors), storage_writer=dcp.FileSystemWriter(folder))
    except dcp.CheckpointException as error:
        why = next(iter(error.failures.values()))[0]
        # torch may turn a failed write into an error of its own.
        raise why if isinstance(why, OSError) else OSError(errno.EIO, str(why).partition("\n")[0]) from None
    metadata.storage_meta = metadata.planner_data = None
    return metadata


def read_shards(folder: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
    """Overwrites tensors, sharded or whole, with what `write_shards` wrote of them, on however many ranks.

    Each rank reads what it holds, and asks no other. No pickle is opened: `metadata` stands for the one in the folder.

    Raises:
        ValueError: tensors have other names or shapes.
    """
    import torch.distributed.checkpoint as dcp

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        try:
            dcp.load(tensors, storage_reader=Reader(folder), no_dist=True)
        except dcp.CheckpointException as error:
            raise ValueError(next(iter(error.failures.values()))[0]) from None


def shard_classes() -> list[Any]:
    """Returns the classes that the metadata of shards consists of, for `torch.load` with `weights_only`."""
    from torch.distributed.checkpoint import filesystem, metadata

    return [
        metadata.Metadata,
        metadata.MetadataIndex,
        metadata.TensorStorageMetadata,
        metadata.TensorProperties,
        metadata.ChunkStorageMetadata,
        metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
    ]


class _Whole(nn.Module):
    """A model with a forward pass that is whatever is to be computed with it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        """Returns what work makes."""
        return work()


def _groups(module: nn.Module, half: set[nn.Parameter], ignored: set[nn.Parameter]) -> list[tuple[nn.Module, bool]]:
    """Returns what is sharded of a module, in that order, and whether its float32 parameters are rounded for use.

    A group rounds all or none, so that parts whose masters are to be rounded are groups of their own where the module
    also has parameters that are float32 in the model.

    Args:
        half: trained parameters, now float32, that the model holds in half precision.
        ignored: parameters that stay whole.
    """
    left = [p for p in module.parameters() if p not in ignored and not hasattr(p, "full_tensor")]
    if not half.intersection(left):
        return [(module, False)]
    if all(p in half for p in left if p.dtype == torch.float32):
        return [(module, True)]
    parts = [part for part in module.modules() if half.intersection(part.parameters(recurse=False))]
    for part in parts:
        if any(p.dtype == torch.float32 and p not in half for p in part.parameters()):
            raise RequestError(
                f"`--parallel fsdp2` cannot shard a {type(part).__name__} that trains in half precision and holds "
                "float32 parameters too: take `--parallel ddp`, or leave out `--dtype`."
            )
    return [*((part, True) for part in parts), (module, False)]


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _check_trains(model: nn.Module, handle: Handle) -> None:
    """Raises RunFailed where the handle's parameters are not the model's: what trains would not be what is saved."""
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    stale = [name for name, p in handle.trainable.items() if id(p) not in trained]
    if stale or len(trained) != len({id(p) for p in handle.trainable.values()}):
        raise RunFailed(f"sharding replaced {len(stale)} trained parameters, first `{(stale or ['?'])[0]}`")
