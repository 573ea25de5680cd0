"""Devices that are none: tensors that say `lazy:0` or `lazy:1`, are computed on the CPU, and refuse to be mixed.

For what must hold where a model is spread over several accelerators. As on CUDA, an operation takes tensors of one
device; a number (a CPU tensor of no dimension) goes with any, and so does an index that lies on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

FIRST, SECOND = torch.device("lazy", 0), torch.device("lazy", 1)
_MOVES = {torch.ops.aten._to_copy, torch.ops.aten.copy_}
_INDEXES = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_}


class Placed(Tensor):
    """A CPU tensor that says it is elsewhere."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Placed:
        """Returns a tensor that looks like `held`, on another device."""
        made: Any = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=device
        )
        made.held = held
        return made

    def data_ptr(self) -> int:
        """Returns where the values are."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """Returns the values."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes an operation on the values."""
        return _computed(func, args, kwargs or {})


class _Scalars(TorchFunctionMode):
    """Inside, `torch.tensor` takes lists of tensors of one number."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and isinstance(args[0], list | tuple):
            args = (tree_map_only(Placed, lambda one: one.item(), args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


class TwoDevices(TorchDispatchMode):
    """Inside, tensors can be made on `FIRST` and `SECOND` and moved there."""

    def __enter__(self) -> Any:
        """Has `torch.tensor` make a CPU tensor first, as FakeTensorMode does where a device is not there."""
        self._scalars = _Scalars()
        self._scalars.__enter__()
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """Ends that."""
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        super().__exit__(*error)
        self._scalars.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes an operation, of tensors on any device."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    where = _one_device(func, tensors)
    if kwargs.get("device") is not None:
        where = torch.device(kwargs["device"])
    elif func.overloadpacket is torch.ops.aten.copy_:
        where = args[0].device
    plain: Callable[[Any], Any] = lambda tree: tree_map_only(Placed, lambda one: one.held, tree)  # noqa: E731
    given = {
        **plain(kwargs),
        **({"device": torch.device("cpu")} if where.type == "lazy" and "device" in kwargs else {}),
    }
    made = func(*plain(args), **given)
    if where.type == "lazy":
        made = tree_map_only(Tensor, lambda one: Placed(one, where), made)
        return return_and_correct_aliasing(func, args, kwargs, made)
    inputs = {id(one.held): one for one in tensors if isinstance(one, Placed)}
    return tree_map_only(Tensor, lambda one: inputs.get(id(one), one), made)


def _one_device(func: Any, tensors: list[Tensor]) -> torch.device:
    """Returns the device of an operation's tensors; RuntimeError where they have several."""
    packet = func.overloadpacket
    if packet in _MOVES:
        return tensors[0].device if tensors else torch.device("cpu")
    devices = {one.device for one in tensors if one.dim() or one.device.type != "cpu"}
    if packet in _INDEXES and tensors[0].device.type != "cpu":
        devices = {one.device for one in tensors if one.device.type != "cpu"}
    if len(devices) > 1:
        raise RuntimeError(f"{func}: expected all tensors on one device, found {sorted(map(str, devices))}")
    return next(iter(devices), torch.device("cpu"))
