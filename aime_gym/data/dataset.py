"""Trajectories in memory, laid end to end, and the sampler of sequences from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aime_gym.data.lazy_images import LazyImages
from aime_gym.data.spaces import ActionEncoding
from aime_gym.types import SequenceBatch, Trajectories, Trajectory, is_image, sensors


class TrajectoryDataset:
    """Dataset of trajectories: every record is a row, so that a batch of sequences is one gather.

    :param trajectories: all with actions, or all without; as [`check_trajectories`][] leaves them.
    :param encoding: encoding of actions; ``None`` drops the actions.
    :param device: device of the rows.
    """

    def __init__(
        self, trajectories: Trajectories, encoding: ActionEncoding | None, device: torch.device | str = "cpu"
    ) -> None:
        self.trajectories = trajectories
        names = sorted(sensors(trajectories[0].observations))  # whatever the order of a space or a file
        self.device = torch.device(device)
        #: Rows of each sensor: a tensor (N, D), or ``LazyImages``.
        self.observations: dict[str, Any] = {
            name: self._sensor([sensors(trajectory.observations)[name] for trajectory in trajectories])
            for name in names
        }
        self.prev_actions: Tensor | None = None
        if encoding is not None:
            self.prev_actions = self._rows([_encoded(trajectory, encoding).prev_actions for trajectory in trajectories])
        counts = torch.tensor([len(trajectory) + 1 for trajectory in trajectories])
        #: Records of each trajectory, and the row of its first one.
        self.counts, self.starts = counts, counts.cumsum(0) - counts

    def _sensor(self, arrays: list[np.ndarray]) -> Tensor | LazyImages:
        of_images = arrays[0].dtype == np.uint8 and is_image(arrays[0].shape[1:])
        return LazyImages(arrays, self.device) if of_images else self._rows(arrays)

    def _rows(self, arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(self.device, torch.float32)

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self.counts.sum())

    def steps(self) -> Tensor:
        """Return how many actions led from the start of its trajectory to each record, (N,) int."""
        return (torch.arange(len(self)) - self.starts.repeat_interleave(self.counts)).to(self.device)

    def first_rows(self) -> Tensor:
        """Return whether each row is the first record of its trajectory, (N,) bool."""
        return self.steps() == 0

    def observed(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every sensor's observations (..., *shape) at rows (...)."""
        return {name: values[rows] for name, values in self.observations.items()}

    def differences(self, values: Tensor) -> Tensor:
        """Return how values of all records (N, D) differ from those of the record before; zeros for first records."""
        changes = torch.zeros_like(values)
        changes[1:] = values[1:] - values[:-1]
        return changes.masked_fill_(self.first_rows()[:, None], 0)

    def per_trajectory(self, values: Tensor) -> list[Tensor]:
        """Return values of all records (N, ...), cut into trajectories again."""
        return list(values.split(self.counts.tolist()))

    def windows(self, rows: Tensor, frames: int) -> dict[str, Tensor]:
        """Return the last ``frames`` observations up to each row (M,), (M, frames, *shape) a sensor, oldest first.

        At the start of a trajectory its first record is repeated, as when acting.
        """
        return self.observed(self.window_rows(rows, frames))

    def window_rows(self, rows: Tensor, frames: int) -> Tensor:
        """Return the rows (M, frames) of these windows."""
        episode = torch.searchsorted(self.starts.to(rows.device), rows, right=True) - 1
        first = self.starts.to(rows.device)[episode]
        back = torch.arange(frames - 1, -1, -1, device=rows.device)
        return torch.maximum(rows[:, None] - back, first[:, None])

    def split_rows(self, train_mask: Sequence[bool], fraction: float) -> tuple[Tensor, Tensor]:
        """Split the rows that an action led to by whole trajectories; windows of one part would leak into the other.

        :param train_mask: whether a trajectory is in the first part, for each; see [`split_trajectories`][].
        :param fraction: share of the first part where all are in it, which are then cut in time.
        """
        reached = ~self.first_rows().cpu()
        inside = torch.tensor(train_mask).repeat_interleave(self.counts)
        first, second = ((reached & part).nonzero().squeeze(-1) for part in (inside, ~inside))
        if inside.all():
            rows = first
            cut = max(1, round(fraction * len(rows)))
            first, second = rows[:cut], rows[cut:] if cut < len(rows) else rows
        return first.to(self.device), second.to(self.device)

    def episodes(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole trajectories in batches, longest first, for passes over everything.

        :return: rows (T, B) and their validity (T, B); invalid rows repeat the trajectory's last record.
        """
        for chosen in self.counts.argsort(descending=True, stable=True).split(batch_size):
            steps = torch.arange(int(self.counts[chosen].max()))[:, None]
            valid = steps < self.counts[chosen]
            rows = self.starts[chosen] + torch.minimum(steps, self.counts[chosen] - 1)
            yield rows.to(self.device), valid.to(self.device)


def split_trajectories(
    count: int, fraction: float, generator: torch.Generator, known: Sequence[bool] = ()
) -> list[bool]:
    """Choose trajectories to learn from, at random; the others are held out. A single one is learnt from.

    :param fraction: share of those to learn from; at least one is, and at least one is not.
    :param known: choices for the first ones, by an earlier split. The others are drawn so that the share of all comes
        closest.
    """
    first = list(known[:count])
    wanted = min(max(1, round(fraction * count)), max(1, count - 1))
    others = torch.zeros(count - len(first), dtype=torch.bool)
    others[torch.randperm(len(others), generator=generator)[: max(0, wanted - sum(first))]] = True
    return first + others.tolist()


def _encoded(trajectory: Trajectory, encoding: ActionEncoding) -> Trajectory:
    if trajectory.actions is None:
        raise ValueError("trajectories: expected all with actions, got one without")
    return trajectory.with_actions(encoding.encode(trajectory.actions))


class SequenceSampler:
    """Sampler of uniform windows of a dataset, with replacement.

    :param sequence_length: records of a sequence; shortened to the longest trajectory. Shorter trajectories repeat
        their last record and are masked there.
    :param start_fraction: share of sequences that start where an episode starts. Uniform windows hardly ever do, and
        yet every evaluation does.
    :param generator: the only source of randomness, on the CPU.
    :param part: part of the batch that is returned, of all that is drawn.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        sequence_length: int,
        batch_size: int,
        generator: torch.Generator,
        start_fraction: float = 0.0,
        part: slice = slice(None),
    ) -> None:
        self.dataset, self.batch_size, self.start_fraction = dataset, batch_size, start_fraction
        self.generator, self.part = generator, part
        self.sequence_length = min(sequence_length, int(dataset.counts.max()))
        self._windows = (dataset.counts - self.sequence_length + 1).clamp_min(1)
        self._window_ends = self._windows.cumsum(0)

    def sample(self) -> SequenceBatch:
        """Return one batch of sequences, (T, B, ...)."""
        dataset = self.dataset
        rows, valid, is_first = self.sample_rows()
        observations = dataset.observed(rows)  # by rows on the CPU, where images are
        rows = rows.to(dataset.device)
        return SequenceBatch(
            observations=observations,
            prev_actions=None if dataset.prev_actions is None else dataset.prev_actions[rows],
            is_first=is_first.to(dataset.device),
            valid=valid.to(dataset.device),
            rows=rows,
        )

    def sample_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of one batch of sequences and their validity, (T, B) each, and which start an episode (B,).

        All on the CPU.
        """
        dataset, batch = self.dataset, self.batch_size
        window = torch.randint(int(self._window_ends[-1]), (batch,), generator=self.generator)
        episode = torch.searchsorted(self._window_ends, window, right=True)
        offset = window - (self._window_ends - self._windows)[episode]
        at_start = torch.rand(batch, generator=self.generator) < self.start_fraction
        any_episode = torch.randint(len(dataset.counts), (batch,), generator=self.generator)
        episode = torch.where(at_start, any_episode, episode)
        offset = torch.where(at_start, torch.zeros_like(offset), offset)

        steps = offset + torch.arange(self.sequence_length)[:, None]  # (T, B)
        last = dataset.counts[episode] - 1
        rows = dataset.starts[episode] + torch.minimum(steps, last)
        return rows[:, self.part], (steps <= last)[:, self.part], (offset == 0)[self.part]
