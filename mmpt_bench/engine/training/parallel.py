"""One training over several ranks of torchrun: each computes its share of a batch, and all take the same step.

A step's gradient is that of one process: losses and answer tokens are summed over ranks, never averaged by rank. `ddp`
keeps the whole model on each rank and adds up gradients with `DistributedDataParallel`, once a step; `fsdp2` is in
`sharded.py`. What ranks decide, they decide together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mmpt_bench.common.errors import MachineError, RequestError, RunFailed, UntrustedRecord
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.engine.training.memory import shortage

T = TypeVar("T")
TIMEOUT = "MMPT_RANK_TIMEOUT"
"""Environment variable: seconds that ranks wait for each other within a training."""
TIMEOUT_SECONDS = 1800.0
_IDLE = timedelta(days=30)
"""How long a rank waits for what it is to do next."""
_FINE, _SHORT, _BROKEN = 0, 1, 2
Cut = list[list[int]]


class Ranks:
    """One process that trains alone; what several ranks do otherwise, `Together` and `Sharded` do."""

    rank, count, way = 0, 1, ""
    has_share = True
    """Whether this rank's part of the last batch counts."""
    caught: tuple[type[Exception], ...] = (MemoryError, RuntimeError)
    """What `fault` is told of."""

    @property
    def is_first(self) -> bool:
        """Returns whether this process is the one that writes and tells."""
        return self.rank == 0

    def placed(self, backbone: Backbone, handle: Handle) -> None:
        """Puts the model where it is trained; the handle's parameters are then those that train."""

    def begun(self, masters: Masters, seed: int) -> None:
        """Makes ready for a training of these parameters, and seeds dropout."""
        torch.manual_seed(derive(seed, "dropout"))

    def share(self, examples: Sequence[T]) -> list[T]:
        """Returns this rank's part of a batch."""
        return list(examples)

    def together(self, work: Callable[[], T]) -> T:
        """Returns what work makes; where it fails on one rank, it fails on all."""
        return work()

    def passes(self, cut: Cut) -> list[tuple[list[int], bool]]:
        """Returns the micro-batches that this rank computes, and whether each counts."""
        return [(chosen, True) for chosen in cut]

    def within(self, work: Callable[[], T]) -> T:
        """Returns what work makes where the model's weights are whole."""
        return work()

    def fault(self, error: Exception | None) -> Exception | None:
        """Returns what ended the passes of a batch on any rank: an error of memory, which `halved` knows.

        Raises what is no shortage of memory, on all ranks.
        """
        return error

    def summed(self, values: Sequence[float]) -> list[float]:
        """Returns the sums over ranks."""
        return list(values)

    def reduced(self, masters: Masters) -> None:
        """Makes gradients the sums over ranks."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Returns for each flag whether some rank has it."""
        return flags

    def same(self, value: Any) -> bool:
        """Returns whether all ranks have this value."""
        return True

    def kept(self, value: Tensor) -> Tensor:
        """Returns what this rank gives to a checkpoint: its part of a sharded tensor; any other from the first."""
        if hasattr(value, "full_tensor"):
            return value.detach()
        return value.detach().cpu() if self.is_first else torch.empty(0)

    def gathered(self, value: T) -> list[T]:
        """Returns every rank's value, in their order."""
        return [value]


ALONE = Ranks()


class Together(Ranks):
    """Ranks of torchrun that hold the whole model each, and share every batch (`ddp`)."""

    way = "ddp"
    caught = (Exception,)

    def __init__(self, device: str | None = None) -> None:
        """Joins the process group; NCCL where there are GPUs, one a rank, else, or for the device "cpu", gloo."""
        seconds = timedelta(seconds=float(os.environ.get(TIMEOUT, TIMEOUT_SECONDS)))
        on_gpu = torch.cuda.is_available() and device != "cpu"
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, rank, count = next(iter(rendezvous("env://", timeout=seconds)))
        # Ranks that torchrun starts again meet in the store of those before, where addresses of dead ones stand.
        own = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        how: dict[str, Any] = {"store": own, "rank": rank, "world_size": count, "timeout": seconds}
        dist.init_process_group("nccl" if on_gpu else "gloo", **how)
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self._control = dist.new_group(backend="gloo", timeout=_IDLE)
        self._ddp: DistributedDataParallel | None = None

    def tell(self, what: Any) -> None:
        """Tells all other ranks what to do next; the first rank does."""
        dist.broadcast_object_list([what], src=0, group=self._control)

    def told(self) -> Any:
        """Returns what the first rank tells, waiting for it as long as it takes."""
        found: list[Any] = [None]
        try:
            dist.broadcast_object_list(found, src=0, group=self._control)
        except RuntimeError as error:
            raise MachineError("The first rank has ended.") from error
        return found[0]

    def gathered(self, value: T) -> list[T]:
        """Returns every rank's value; ranks wait for each other as long as it takes."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self._control)
        return found

    def let_go(self) -> None:
        """Frees what a training has left: buckets of gradients, a sharded model."""
        self._ddp = None

    def leave(self) -> None:
        """Ends the group, when all ranks have come here."""
        dist.barrier(group=self._control)
        dist.destroy_process_group()

    def begun(self, masters: Masters, seed: int) -> None:
        """Begins with the same values on all ranks, and with dropout of each rank's own."""
        torch.manual_seed(derive(seed, f"dropout {self.rank}" if self.rank else "dropout"))
        self._ddp = DistributedDataParallel(_Trained(masters))

    def share(self, examples: Sequence[T]) -> list[T]:
        """Returns every so manieth example: none is computed twice, and a rank may have none."""
        return list(examples[self.rank :: self.count])

    def together(self, work: Callable[[], T]) -> T:
        """Returns what work makes; where it fails on one rank, each raises, its own error or that of another rank."""
        made, error = None, None
        try:
            made = work()
        except Exception as found:
            error = found
        self._agreed(error, all_kinds=True)
        return made  # type: ignore[return-value]

    def fault(self, error: Exception | None) -> Exception | None:
        """Returns a shortage of memory on any rank."""
        return self._agreed(error, all_kinds=False)

    def _agreed(self, error: Exception | None, all_kinds: bool) -> Exception | None:
        kind = _FINE if error is None else _BROKEN if all_kinds or shortage(error) is None else _SHORT
        worst = int(self._reduce([float(kind)], dist.ReduceOp.MAX)[0])
        if worst == _FINE:
            return None
        told = self.gathered(None if error is None else (type(error), str(error)))
        rank, (of, text) = next((i, one) for i, one in enumerate(told) if one is not None)
        if worst == _BROKEN:
            if error is not None:
                raise error
            # Any other fault, as of an image, is the run's, as it is where one process trains.
            raise (of if of in (RequestError, MachineError, UntrustedRecord) else RunFailed)(f"rank {rank}: {text}")
        return error or MemoryError(f"rank {rank}: {text}")

    def reduced(self, masters: Masters) -> None:
        """Adds up what ranks have gathered in their gradients; one that no rank has stays None."""
        assert self._ddp is not None
        parameters = list(masters.by_name.values())
        has = self._reduce([float(p.grad is not None) for p in parameters], dist.ReduceOp.MAX)
        # A backward pass that adds nothing: DDP averages what micro-batches left in the gradients.
        self._ddp().backward()
        for parameter, is_there in zip(parameters, has, strict=True):
            if not is_there:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad *= self.count

    def summed(self, values: Sequence[float]) -> list[float]:
        """Returns the sums over ranks."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Returns for each flag whether some rank has it."""
        return tuple(map(bool, self._reduce([float(flag) for flag in flags], dist.ReduceOp.MAX)))

    def same(self, value: Any) -> bool:
        """Returns whether all ranks have this value; they are waited for no longer than within a training."""
        self.any(False)
        found = self.gathered(value)
        return all(one == found[0] for one in found)

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        made = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(made, operation)
        found: list[float] = made.tolist()
        return found


class _Trained(nn.Module):
    """The parameters that are trained, and nothing else of a model."""

    def __init__(self, masters: Masters) -> None:
        super().__init__()
        self.values = nn.ParameterList(masters.by_name.values())

    def forward(self) -> Tensor:
        """Returns 0, which depends on every parameter."""
        return torch.stack([(value.flatten()[:1] * 0).sum() for value in self.values]).sum()
