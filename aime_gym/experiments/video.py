"""Videos of policies side by side, each in its own copy of the same episode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

from aime_gym.data.captions import BLOCK, captioned, write_video
from aime_gym.data.recording import EPISODE_LIMIT, endless_episode, has_time_limit
from aime_gym.experiments.evaluation import Policy, as_predictor
from aime_gym.experiments.task import TaskConfig
from aime_gym.types import Array
from aime_gym.wrappers.quality import draw_fast, mujoco_model

#: Pixels: height of a picture.
SIZE = 320
#: Frames per second at most, and how long the end of an episode stays.
_RATE, _HOLD_SECONDS = 30, 0.7


class Half(NamedTuple):
    """One of the policies in a video."""

    label: str
    task: TaskConfig
    #: The policy for an environment of ``task``.
    policy: Callable[[gym.Env], Policy]


class _Moment(NamedTuple):
    picture: Array
    episode_return: float
    success: bool | None


def record_video(path: Path, halves: Sequence[Half], *, episodes: int, seed: int) -> None:
    """Write an mp4 with the policies beside each other; episode ``k`` starts from ``seed + k`` in all halves.

    :raises RuntimeError: there is nothing to render with; the message names the packages.
    """
    with ExitStack() as stack:
        envs = [stack.enter_context(_render_env(half.task)) for half in halves]
        rate = min(_RATE, max(1, round(envs[0].metadata.get("render_fps") or _RATE)))
        write_video(path, _frames(halves, envs, episodes, seed, hold=round(_HOLD_SECONDS * rate)), rate)


def _render_env(task: TaskConfig) -> gym.Env:
    if task.modality == "pixels":  # the frames that the agent sees
        return task.make()
    env = task.make(render_mode="rgb_array", image_size=SIZE)
    if mujoco_model(env) is not None:
        draw_fast(env)
    return env


def _frames(halves: Sequence[Half], envs: Sequence[gym.Env], episodes: int, seed: int, hold: int) -> Iterator[Array]:
    policies = [half.policy(env) for half, env in zip(halves, envs, strict=True)]
    for episode in range(episodes):
        runs = [_moments(policy, env, seed + episode) for policy, env in zip(policies, envs, strict=True)]
        last: list[_Moment] = []
        for moments in zip_longest(*runs):
            # Who is done first waits for the other.
            last = [new or old for new, old in zip_longest(moments, last)]
            frame = _side_by_side(halves, last, episode)
            yield frame
        yield from [frame] * hold


def _moments(policy: Policy, env: gym.Env, seed: int) -> Iterator[_Moment]:
    predictor = as_predictor(policy)
    observation, info = env.reset(seed=seed)
    state, start = None, np.ones(1, dtype=bool)
    total, done = 0.0, False
    limit = None if has_time_limit(env) else EPISODE_LIMIT
    for steps in itertools.count():
        if steps == limit:
            raise endless_episode(limit)
        yield _Moment(np.asarray(env.render()), total, info.get("is_success"))
        if done:
            return
        batch = {k: v[None] for k, v in observation.items()} if isinstance(observation, dict) else observation[None]
        action, state = predictor.predict(batch, state=state, episode_start=start, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action[0])
        start = np.zeros(1, dtype=bool)
        total, done = total + float(reward), terminated or truncated


def _side_by_side(halves: Sequence[Half], moments: Sequence[_Moment], episode: int) -> Array:
    return np.concatenate(
        [_with_caption(moment, half.label, episode) for half, moment in zip(halves, moments, strict=True)],
        axis=1,
    )


def _with_caption(moment: _Moment, label: str, episode: int) -> Array:
    picture = Image.fromarray(moment.picture)
    width = max(BLOCK, round(picture.width * SIZE / picture.height / BLOCK) * BLOCK)
    return captioned(
        picture.resize((width, SIZE)),
        label,
        f"episode {episode + 1}   return {moment.episode_return:.1f}",
        mark="success" if moment.success else None,
    )
