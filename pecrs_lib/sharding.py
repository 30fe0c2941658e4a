"""Weights shared out over processes (FSDP2), and whole again where they are needed whole.

Comes before `checkpoint` and `training`. `accelerate` shares the weights out, as its configuration
says (configs/fsdp_7b.yaml); a training step then gathers one layer at a time. A validation gathers
all of them, 14 GB a device for 7 billion weights in bfloat16; a checkpoint the trained ones.
Without FSDP nothing in here does anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from pecrs_lib.config import Config


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def refuse_sharded(config: Config) -> None:
    """Raise ValueError where `config` asks for what sharing out does not allow."""
    if config.warm_start or config.refresh_items:
        raise ValueError(
            "weights shared out by FSDP train with warm_start=0 and refresh_items=0, as both read "
            f"the whole LM between steps; got {config.warm_start} and {config.refresh_items}"
        )


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All weights whole in every process while inside, to read them; all processes come here."""
    parts = [m for m in model.modules() if isinstance(m, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)


@contextmanager
def trained_whole(model: nn.Module) -> Iterator[None]:
    """The trained weights whole while inside, to save them; all processes come here."""
    places: list[tuple[nn.Module, str, nn.Parameter]] = []
    gathered: dict[int, nn.Parameter] = {}  # by the parameter, which may have several places
    for module in model.modules():
        for name, p in module._parameters.items():
            if isinstance(p, DTensor) and p.requires_grad:
                places.append((module, name, p))
                if id(p) not in gathered:
                    gathered[id(p)] = nn.Parameter(p.detach().full_tensor())
    for module, name, p in places:
        module._parameters[name] = gathered[id(p)]
    try:
        yield
    finally:
        for module, name, p in places:
            module._parameters[name] = p


def like(x: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, shared out as the parameter is; itself where that is not shared out."""
    if not isinstance(parameter, DTensor):
        return x
    return distribute_tensor(x.to(parameter.device), parameter.device_mesh, parameter.placements)


def whole_state(optimizer: Any) -> dict[str, Any]:
    """`state_dict` with whole tensors; all processes come here."""
    state = optimizer.state_dict()
    moments = {
        k: {n: x.full_tensor() if isinstance(x, DTensor) else x for n, x in values.items()}
        for k, values in state["state"].items()
    }
    return state | {"state": moments}


def load_whole_state(optimizer: Any, state: dict[str, Any]) -> None:
    """The inverse of `whole_state`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def placed(x: Any, parameter: Tensor) -> Any:  # the number of steps stays as it is
        return like(x, parameter) if torch.is_tensor(x) and x.dim() else x

    moments = {
        k: {n: placed(x, parameters[k]) for n, x in values.items()}
        for k, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": moments})
