"""What a run needs of `accelerate`: the device, the other processes, and an orderly end.

Comes before `training`. One process or many, the code is the same; `accelerate launch` or
`torchrun` starts them. A run of several processes ends when one of them does: the others are told,
by an error of their connection or by the signal SIGTERM of the launcher, and the first one saves
what it has.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch.distributed import DistError
from transformers.modeling_layers import GradientCheckpointingLayer

from pecrs_lib.processes import Processes

PATIENCE = timedelta(minutes=10)  # for a process that answers no more without having died
LOST = ("gloo", "nccl", "connection", "peer", "socket", "timed out")  # in words of a lost process


class ProcessLostError(Exception):
    """Another process of the run ended; this one cannot go on without it."""


def connect() -> Accelerator:
    """The device of this process, and its connection to the others if a launcher started some.

    Raises:
        ValueError: `accelerate launch --cpu` was asked for several processes; it starts only one.
    """
    several = {"MASTER_ADDR", "ACCELERATE_USE_CPU"} <= set(os.environ)  # were asked for
    if several and not {"RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"} & set(os.environ):
        raise ValueError(
            "accelerate launch --cpu starts one process, however many --num_processes says; "
            "on CPU, too, take --multi_gpu in place of --cpu, or torchrun --nproc_per_node"
        )
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            # a share of a batch may use fewer parameters than another, e.g. recommend nothing
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def processes_of(accelerator: Accelerator) -> Processes:
    """Which of how many processes this one is."""
    return Processes(accelerator.process_index, accelerator.num_processes)


@contextmanager
def lost_processes_named(processes: Processes) -> Iterator[None]:
    """Raise `ProcessLostError` for errors, of many forms, that say another cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, DistError) or any(word in str(error).lower() for word in LOST)
        if processes.count == 1 or not lost:
            raise
        raise ProcessLostError(
            f"another process of this run ended, so process {processes.rank} of "
            f"{processes.count} ends, too; the same command, with any number of processes, goes "
            "on from the last checkpoint"
        ) from error


def recompute_layers(lm: Any) -> None:
    """Let a `transformers` model keep no activations inside its layers but compute them again.

    To be called after each change between training and evaluation: a layer does so while its
    `training` is set, which a frozen LM's is not otherwise. Dropout in the layers stays as it is.

    Raises:
        ValueError: a model whose layers cannot.
    """
    enable = getattr(lm, "activation_checkpointing_enable", None)  # its later name
    (enable or lm.gradient_checkpointing_enable)({"use_reentrant": False})
    for layer in lm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until weights, step count and checkpoint agree again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    both: tuple[int, int] = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda number, frame: waiting.append(number)) for s in both]
    try:
        yield
    finally:
        for number, handler in zip(both, before, strict=True):
            signal.signal(number, handler)
    for number in waiting:
        signal.raise_signal(number)
