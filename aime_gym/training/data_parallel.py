"""Data-parallel updates: processes that ``torchrun`` starts share each batch, and average its gradients.

Each of them draws the whole batch and all noise, by equal generators, and computes the part that is its own. So all
together do what one process does, up to the order in which a sum is added.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aime_gym.types import Metrics


@dataclass(frozen=True)
class DataParallel:
    """The processes that train one network; by default there is this one alone.

    :param rank: position of this process; the first one, 0, writes files and logs, and calls callbacks.
    :param size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def part(self, batch_size: int) -> slice:
        """Return this process's part of a batch.

        :raises ValueError: a batch that cannot be divided into equal parts.
        """
        if batch_size % self.size:
            raise ValueError(f"batch_size: expected a multiple of the {self.size} processes, got {batch_size}")
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over all processes."""
        if self.size == 1:
            return
        tensors = list(tensors)
        joined = torch.cat([tensor.flatten() for tensor in tensors])  # one message instead of one for each
        dist.all_reduce(joined)
        means = (joined / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def averaged(self, metrics: Metrics) -> Metrics:
        """Return the means of metrics over all processes."""
        if self.size == 1:
            return metrics
        values = torch.stack([torch.as_tensor(value, dtype=torch.float32).detach() for value in metrics.values()])
        self.average([values])
        return dict(zip(metrics, values.unbind(), strict=True))

    def largest(self, number: int) -> int:
        """Return the largest of the numbers that the processes call this with."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def check_equal(self, values: Mapping[str, Any]) -> None:
        """Check that all processes start from the same.

        :param values: JSON values by what they are.
        :raises ValueError: values that differ, by name.
        """
        if self.size == 1:
            return
        everywhere: list[Any] = [None] * self.size
        dist.all_gather_object(everywhere, values)
        if differing := [name for name in values if any(other[name] != values[name] for other in everywhere)]:
            raise ValueError(f"torchrun: expected processes with the same {', '.join(differing)}, got different ones")


#: Value for a phase of this process alone.
ONE_PROCESS = DataParallel()


def processes_of_torchrun(verb: str, *, divided: bool) -> DataParallel:
    """Return the processes of ``torchrun``, or of the caller's process group, and connect them first.

    :param verb: the phase that starts.
    :param divided: whether its updates can be divided among processes.
    :raises NotImplementedError: several processes for a phase whose updates cannot.
    """
    size = dist.get_world_size() if dist.is_initialized() else int(os.environ["WORLD_SIZE"]) if _launched() else 1
    if size == 1:
        return ONE_PROCESS
    if not divided:
        raise NotImplementedError(
            f"{verb}: expected one process, got {size} of torchrun; only pretrain of agents with a world model divides "
            f"its updates among processes"
        )
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    return DataParallel(dist.get_rank(), size)


def select_gpu() -> None:
    """Let ``cuda`` mean a GPU of its own in each process of ``torchrun``."""
    if _launched() and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _launched() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()
