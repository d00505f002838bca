"""Transitions, as a learned reward sees them: those of the demonstrations, and those of who imitates them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.models.stacked import joined
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class Transitions:
    """N steps, from s to s'.

    :param obs: s (N, D), sensors side by side.
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


@dataclass(frozen=True)
class Expert:
    """What the demonstrations show.

    :param transitions: all of their steps.
    :param episodes: how many they are.
    :param endings_known: whether all of them say how they end, in a terminal state or cut.
    """

    transitions: Transitions
    episodes: int
    endings_known: bool

    @classmethod
    def of(cls, demos: Trajectories, encoding: ActionEncoding | None, device: torch.device) -> Expert:
        """Take them in.

        :param encoding: of the actions, for oracles; ``None`` drops them.
        """
        dataset = TrajectoryDataset(demos, encoding, device)
        observations = joined(dataset.observations)
        reached = (~dataset.first_rows()).nonzero().squeeze(-1)
        terminated = torch.cat([torch.arange(len(demo), 0, -1) == 1 for demo in demos])
        terminated &= torch.tensor([demo.terminated for demo in demos]).repeat_interleave(
            torch.tensor([len(demo) for demo in demos])
        )
        transitions = Transitions(
            observations[reached - 1],
            None if dataset.pre_actions is None else dataset.pre_actions[reached],
            observations[reached],
            terminated.to(device),
        )
        return cls(transitions, len(demos), all(demo.terminated or demo.truncated for demo in demos))

    @property
    def ends(self) -> int:
        """How many demonstrations end in a terminal state."""
        return int(self.transitions.terminated.sum())
