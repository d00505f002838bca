"""Transitions as a learned reward sees them: the demonstrations', and the agent's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.learned_reward.frame_stack import FrameStack
from aime_gym.types import Trajectories


@dataclass(frozen=True)
class Transitions:
    """N steps, from s to s'.

    :param obs: s, (N, ...) of each sensor: vectors (N, D), stacks of frames (N, C, H, W).
    :param actions: encoded actions (N, A); ``None`` for a reward that does not use them.
    :param next_obs: s' likewise; at an episode's end the last observation, not the next start.
    :param terminated: flags (N,), true where s' is a terminal state.
    """

    obs: TensorDict
    actions: Tensor | None
    next_obs: TensorDict
    terminated: Tensor

    def __len__(self) -> int:
        return len(self.terminated)

    def __getitem__(self, rows: Tensor) -> Transitions:
        """Return the transitions at rows (M,)."""
        return Transitions(
            {name: values[rows] for name, values in self.obs.items()},
            None if self.actions is None else self.actions[rows],
            {name: values[rows] for name, values in self.next_obs.items()},
            self.terminated[rows],
        )

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Draw transitions, with replacement."""
        return self[_draw_rows(len(self), count, generator).to(self.terminated.device)]

    @classmethod
    def concatenate(cls, parts: Sequence[Transitions]) -> Transitions:
        """Join transitions, one part after the other; all parts have actions, or none has."""
        actions = [part.actions for part in parts if part.actions is not None]
        return cls(
            {name: torch.cat([part.obs[name] for part in parts]) for name in parts[0].obs},
            torch.cat(actions) if actions else None,
            {name: torch.cat([part.next_obs[name] for part in parts]) for name in parts[0].next_obs},
            torch.cat([part.terminated for part in parts]),
        )


class ExpertTransitions:
    """The transitions of the demonstrations.

    Images are looked up when they are asked for, so that no stack of frames lies in memory beside the frames.

    :param demos: all demonstrations.
    :param encoding: encoding of the actions, for oracles; ``None`` drops them.
    :param frame_stack: stacker of the frames of images.
    """

    def __init__(
        self, demos: Trajectories, encoding: ActionEncoding | None, frame_stack: FrameStack, device: torch.device
    ) -> None:
        self._frame_stack = frame_stack
        self._dataset = dataset = TrajectoryDataset(demos, encoding, device)
        self._next_rows = (~dataset.first_rows()).nonzero().squeeze(-1)
        is_last = torch.cat([torch.arange(len(demo), 0, -1) == 1 for demo in demos])
        lengths = torch.tensor([len(demo) for demo in demos])
        terminates = torch.tensor([demo.terminated for demo in demos]).repeat_interleave(lengths)
        #: All transitions, without their images.
        self.vectors = Transitions(
            frame_stack.vectors_of_records(dataset, self._next_rows - 1),
            None if dataset.prev_actions is None else dataset.prev_actions[self._next_rows],
            frame_stack.vectors_of_records(dataset, self._next_rows),
            (is_last & terminates).to(device),
        )
        self.num_episodes = len(demos)
        #: Number of demonstrations that end in a terminal state.
        self.num_terminations = int(self.vectors.terminated.sum())
        #: Whether all demonstrations say how they end, in a terminal state or cut.
        self.endings_known = all(demo.terminated or demo.truncated for demo in demos)

    def __len__(self) -> int:
        return len(self.vectors)

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Draw transitions with their images, with replacement."""
        rows = _draw_rows(len(self), count, generator).to(self._next_rows.device)
        sampled = self.vectors[rows]
        if not self._frame_stack.images:
            return sampled
        next_rows = self._next_rows[rows]
        return Transitions(
            self._frame_stack.of_records(self._dataset, next_rows - 1),
            sampled.actions,
            self._frame_stack.of_records(self._dataset, next_rows),
            sampled.terminated,
        )


def _draw_rows(high: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(high, (count,), generator=generator)
