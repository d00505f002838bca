"""SB3's recurrent ``predict`` for networks with a memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.types import Array, Observation

#: Function of encoded observations (n_envs, ...) and a memory: encoded actions (n_envs, A) and the next memory.
Act = Callable[[dict[str, Tensor], tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]


@torch.no_grad()
def predict_as_sb3(
    observations: ObservationEncoding,
    encoding: ActionEncoding,
    start: Callable[[dict[str, Tensor]], tuple[Tensor, ...]],
    act: Act,
    observation: Observation,
    state: tuple[Array, ...] | None,
    episode_start: Array | bool | None,
    device: torch.device,
) -> tuple[Array, tuple[Array, ...], bool]:
    """Choose actions as SB3's ``predict`` does.

    :param observations: encoding of observations.
    :param encoding: encoding of actions.
    :param start: function of encoded observations (n_envs, ...) that makes the memory before an episode's first one.
    :param act: function that chooses encoded actions.
    :param observation: one observation, or a batch (n_envs, ...).
    :param state: memory that the last call returned; ``None`` starts an episode in every environment.
    :param episode_start: mask (n_envs,) of rows whose memory starts anew.
    :param device: device of the networks.
    :return: actions and memory, both (n_envs, ...), and whether the observations came as a batch.
    :raises ValueError: an observation, state or ``episode_start`` of another shape.
    """
    inputs, batched = observations.encode(observation, device)
    rows = len(next(iter(inputs.values())))
    before = fresh = start(inputs)
    if state is not None:
        before = _as_memory(state, fresh, device)
    if episode_start is not None:
        first = torch.tensor(np.atleast_1d(np.asarray(episode_start, bool)), device=device)
        if first.shape != (rows,):
            raise ValueError(f"episode_start: expected shape {(rows,)}, got {tuple(first.shape)}")
        before = tuple(
            torch.where(first.view(-1, *[1] * (old.ndim - 1)), new, old) for old, new in zip(before, fresh, strict=True)
        )
    encoded, after = act(inputs, before)
    return encoding.decode(encoded.cpu().numpy()), tuple(part.cpu().numpy() for part in after), batched


def _as_memory(state: tuple[Array, ...], fresh: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    expected = f"state: expected a tuple of arrays of shapes {[tuple(part.shape) for part in fresh]}"
    try:
        parts = [np.array(part, np.float32) for part in state]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}, got {type(state).__name__} ({error})") from error
    if [part.shape for part in parts] != [tuple(part.shape) for part in fresh]:
        raise ValueError(f"{expected}, got {[part.shape for part in parts]}")
    return tuple(torch.from_numpy(part).to(device, new.dtype) for part, new in zip(parts, fresh, strict=True))
