"""Transitions, as a learned reward sees them: those of the demonstrations, and those of who imitates them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.models.flat_layout import FrameStacker
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class Transitions:
    """N steps, from s to s'.

    :param obs: s (N, D), flat.
    :param actions: encoded actions (N, A); ``None`` where nobody may see them.
    :param next_obs: s' (N, D); at an episode's end the last observation, not the next start.
    :param terminated: (N,) bool; whether s' is a terminal state.
    """

    obs: Tensor
    actions: Tensor | None
    next_obs: Tensor
    terminated: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def at(self, rows: Tensor) -> Transitions:
        """Some of them."""
        actions = None if self.actions is None else self.actions[rows]
        return Transitions(self.obs[rows], actions, self.next_obs[rows], self.terminated[rows])

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Some of them, with replacement."""
        return self.at(_sampled(len(self), count, generator).to(self.obs.device))

    @classmethod
    def joined(cls, parts: list[Transitions]) -> Transitions:
        """One after the other."""
        first_actions = parts[0].actions
        return cls(
            torch.cat([part.obs for part in parts]),
            None if first_actions is None else torch.cat([part.actions for part in parts if part.actions is not None]),
            torch.cat([part.next_obs for part in parts]),
            torch.cat([part.terminated for part in parts]),
        )


class ExpertTransitions:
    """What the demonstrations show.

    Images are looked up when they are asked for, so that no stack of frames lies in memory beside the frames.

    :param demos: all of them.
    :param encoding: of the actions, for oracles; ``None`` drops them.
    :param stacked: how observations are flat.
    """

    def __init__(
        self, demos: Trajectories, encoding: ActionEncoding | None, stacked: FrameStacker, device: torch.device
    ) -> None:
        self._dataset, self._stacked = TrajectoryDataset(demos, encoding, device), stacked
        dataset = self._dataset
        self._reached = (~dataset.first_rows()).nonzero().squeeze(-1)
        terminated = torch.cat([torch.arange(len(demo), 0, -1) == 1 for demo in demos])
        terminated &= torch.tensor([demo.terminated for demo in demos]).repeat_interleave(
            torch.tensor([len(demo) for demo in demos])
        )
        #: All steps, as far as vectors show them: (N, V) in place of (N, D).
        self.transitions = Transitions(
            stacked.recorded_vectors(dataset, self._reached - 1),
            None if dataset.prev_actions is None else dataset.prev_actions[self._reached],
            stacked.recorded_vectors(dataset, self._reached),
            terminated.to(device),
        )
        #: How many demonstrations there are, and whether all of them say how they end, in a terminal state or cut.
        self.episodes = len(demos)
        self.endings_known = all(demo.terminated or demo.truncated for demo in demos)

    def __len__(self) -> int:
        return len(self.transitions)

    @property
    def ends(self) -> int:
        """How many demonstrations end in a terminal state."""
        return int(self.transitions.terminated.sum())

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Some of their steps, with replacement."""
        rows = _sampled(len(self), count, generator).to(self._reached.device)
        known = self.transitions.at(rows)
        if not self._stacked.images:
            return known
        reached = self._reached[rows]
        obs, next_obs = (self._stacked.recorded(self._dataset, at) for at in (reached - 1, reached))
        return Transitions(obs, known.actions, next_obs, known.terminated)


def _sampled(of: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(of, (count,), generator=generator)
