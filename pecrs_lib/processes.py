"""The processes of one run: which share of the work each does, and how the parts come together.

Among the first modules: `items`, `batches`, `protocol` and `warmstart` split their work by it, and
`training` says how many processes there are. `accelerate` or `torchrun` starts them and carries
what they tell each other. A process that works alone is `ALONE`: it has everything and waits for
nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    All of them must call the methods that talk (`join`, `sum`, `agree`, `same`, `wait`), in the
    same order.

    Attributes:
        rank: 0 … count − 1; the one with rank 0 writes files and speaks to people.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Every `count`-th thing, from `rank` on: no thing twice, and none left out."""
        return things[self.rank :: self.count]

    def join(self, mine: list[T]) -> list[T]:
        """The things of all processes, by rank; things are pickled."""
        return mine if self.count == 1 else list(gather_object(mine))

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes of a tensor of one shape."""
        if self.count == 1:
            return x
        return reduce(x.to(PartialState().device), "sum").to(x.device)

    def agree(self, value: T) -> T:
        """What the first process says; a small thing that can be pickled."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        if self.count > 1:
            for x in tensors:
                x.copy_(broadcast(x.detach().clone()))

    def shared(self, path: Path) -> Path:
        """The path of a file that the first process wrote; raises FileNotFoundError if hidden."""
        if not path.exists():
            raise FileNotFoundError(
                f"{path}, which the first process wrote, is not to be seen by process {self.rank}; "
                "put it on a file system that all machines share"
            )
        return path

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


ALONE = Processes()
