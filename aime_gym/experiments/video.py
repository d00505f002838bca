"""Videos of policies side by side, each in its own copy of the same episode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

from aime_gym.data.captions import BLOCK, captioned
from aime_gym.data.recording import EPISODE_LIMIT, endless_episode, has_time_limit
from aime_gym.data.video_writing import check_video_path, write_video
from aime_gym.experiments.evaluation import Policy, as_predictor
from aime_gym.tasks import TaskConfig
from aime_gym.types import Array
from aime_gym.wrappers.quality import mujoco_model, use_fast_rendering

#: Pixels: height of a picture.
SIZE = 320
#: Frames per second at most, and how long the end of an episode stays.
_RATE, _HOLD_SECONDS = 30, 0.7


@dataclass(frozen=True)
class VideoPolicy:
    """A policy in a video.

    :param label: name in the caption.
    :param task: task that the policy acts in.
    :param policy: function that makes the policy for an environment of ``task``.
    """

    label: str
    task: TaskConfig
    policy: Callable[[gym.Env], Policy]


class _Step(NamedTuple):
    picture: Array
    episode_return: float
    success: bool | None


def record_video(path: Path, policies: Sequence[VideoPolicy], *, episodes: int, seed: int) -> None:
    """Write an mp4 with the policies beside each other; episode ``k`` starts from ``seed + k`` for all of them.

    :raises RuntimeError: there is nothing to render with; the message names the packages.
    """
    with ExitStack() as stack:
        envs = [stack.enter_context(_render_env(one.task)) for one in policies]
        rate = min(_RATE, max(1, round(envs[0].metadata.get("render_fps") or _RATE)))
        write_video(path, _frames(policies, envs, episodes, seed, hold=round(_HOLD_SECONDS * rate)), rate)


def check_video(path: Path, task: TaskConfig, argument: str) -> None:
    """Check that a video of a task can be recorded.

    :raises ValueError: a file of another kind than can be written.
    :raises RuntimeError: there is nothing to render with; the message names the packages.
    :raises DependencyNotInstalled: a package that Gymnasium renders with is missing.
    """
    check_video_path(path, argument)
    with _render_env(task) as env:
        env.reset()
        env.render()


def _render_env(task: TaskConfig) -> gym.Env:
    if task.modality == "pixels":  # the frames that the agent sees
        return task.make()
    env = task.make(render_mode="rgb_array", image_size=SIZE)
    if mujoco_model(env) is not None:
        use_fast_rendering(env)
    return env


def _frames(
    shown: Sequence[VideoPolicy], envs: Sequence[gym.Env], episodes: int, seed: int, hold: int
) -> Iterator[Array]:
    policies = [one.policy(env) for one, env in zip(shown, envs, strict=True)]
    for episode in range(episodes):
        runs = [_play_episode(policy, env, seed + episode) for policy, env in zip(policies, envs, strict=True)]
        last: list[_Step] = []
        for steps in zip_longest(*runs):
            # The picture of an episode that has ended stays until the others end.
            last = [new or old for new, old in zip_longest(steps, last)]
            pictures = [_with_caption(step, one.label, episode) for one, step in zip(shown, last, strict=True)]
            frame = np.concatenate(pictures, axis=1)
            yield frame
        yield from [frame] * hold


def _play_episode(policy: Policy, env: gym.Env, seed: int) -> Iterator[_Step]:
    predictor = as_predictor(policy)
    observation, info = env.reset(seed=seed)
    state = None
    start = np.ones(1, dtype=bool)
    total = 0.0
    done = False
    limit = None if has_time_limit(env) else EPISODE_LIMIT
    for steps in itertools.count():
        if steps == limit:
            raise endless_episode(limit)
        yield _Step(np.asarray(env.render()), total, info.get("is_success"))
        if done:
            return
        batch = {k: v[None] for k, v in observation.items()} if isinstance(observation, dict) else observation[None]
        action, state = predictor.predict(batch, state=state, episode_start=start, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action[0])
        start = np.zeros(1, dtype=bool)
        total += float(reward)
        done = terminated or truncated


def _with_caption(step: _Step, label: str, episode: int) -> Array:
    picture = Image.fromarray(step.picture)
    width = max(BLOCK, round(picture.width * SIZE / picture.height / BLOCK) * BLOCK)
    return captioned(
        picture.resize((width, SIZE)),
        label,
        f"episode {episode + 1}   return {step.episode_return:.1f}",
        mark="success" if step.success else None,
    )
