"""What an agent's environment says of the images that it shows, and of the videos that it can be shown."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from aime_gym.agents import BCOAgent
from aime_gym.agents.environments import check_envs_agree, rendering_of_envs, shown_frames
from aime_gym.data import save_video
from aime_gym.testing import toy
from aime_gym.wrappers import OverrideSpec

IMAGE = spaces.Box(0, 255, (8, 9, 3), np.uint8)


class Camera(gym.Env):
    observation_space = IMAGE
    action_space = spaces.Discrete(2)
    metadata = {"render_fps": 1000}


def vectorised(env):
    return DummyVecEnv([lambda: Monitor(env)])


def test_the_task_s_rate():
    spec = gym.envs.registration.EnvSpec("aime_gym/camera-pixels-v0")
    env = vectorised(OverrideSpec(Camera(), spec, {"render_fps": 12.5}))
    assert shown_frames(env, IMAGE) == {"frame_shape": (8, 9, 3), "frame_rate": 12.5}


@pytest.mark.parametrize(("metadata", "rate"), [({"render_fps": 30}, 30.0), ({}, None), ({"render_fps": 4e4}, None)])
def test_another_environment_s_rate(metadata, rate):
    env = Camera()
    env.metadata = metadata
    assert shown_frames(vectorised(env), IMAGE) == {"frame_shape": (8, 9, 3), "frame_rate": rate}


def test_shimmy_gives_milliseconds():
    env = Camera()
    env.metadata, env.spec = {"render_fps": 25}, gym.envs.registration.EnvSpec("dm_control/walker-walk-v0")
    assert shown_frames(vectorised(env), IMAGE)["frame_rate"] is None


def test_no_environment():
    assert shown_frames(None, IMAGE) == {"frame_shape": (8, 9, 3), "frame_rate": None}


def test_no_images():
    assert shown_frames(None, spaces.Box(0, 1, (4,))) == {}


def test_a_video_for_an_environment_without_images(tmp_path):
    path = save_video(tmp_path / "a.mp4", np.zeros((4, 8, 9, 3), np.uint8), 20)
    agent = BCOAgent(toy.PointMass())
    with pytest.raises(ValueError, match=r"demos\[0\]\.observations: expected dtype float32, got uint8"):
        agent.imitate(path)


def test_an_agent_loads_what_its_environment_shows(tmp_path, monkeypatch):
    path = save_video(tmp_path / "a.mp4", np.zeros((4, 8, 9, 3), np.uint8), 20)
    agent = BCOAgent(toy.PointMass())
    env = Camera()
    env.metadata = {"render_fps": 10}
    monkeypatch.setattr(agent, "env", vectorised(env))
    monkeypatch.setattr(agent, "observation_space", IMAGE)
    with pytest.warns(UserWarning, match="demos: 1 of 1 videos have another frame rate"):
        (demo,) = agent._trajectories(path, None, "demos", need_actions=False)
    assert demo.observations.shape == (2, 8, 9, 3)
    with pytest.raises(ValueError, match=r"demos: expected frames \(H, W, C\) of \(8, 9, 3\), got \(9, 9, 3\)"):
        agent._trajectories(
            save_video(tmp_path / "b.mp4", np.zeros((4, 9, 9, 3), np.uint8), 20), None, "demos", need_actions=False
        )


class Drawn(gym.Env):
    """Shows images, and says how they are drawn, or does not."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, rendering=None):
        if rendering is not None:
            self.rendering = rendering

    def reset(self, *, seed=None, options=None):
        return np.zeros((8, 8, 3), np.uint8), {}

    def step(self, action):
        return np.zeros((8, 8, 3), np.uint8), 0.0, True, False, {}


def copies(*renderings, of=DummyVecEnv):
    return of([lambda rendering=rendering: Drawn(rendering) for rendering in renderings])


@pytest.mark.parametrize("rendering", ["default", "fast"])
def test_copies_of_one_quality(rendering):
    assert rendering_of_envs(copies(rendering, rendering)) == rendering


def test_copies_that_do_not_say():
    assert rendering_of_envs(copies(None, None)) is None
    assert rendering_of_envs(copies("realistic")) is None


def test_workers_survive_the_question():
    env = copies(None, of=SubprocVecEnv)
    assert rendering_of_envs(env) is None
    env.reset()
    env.close()


def test_copies_of_several_qualities():
    with pytest.raises(ValueError, match="^env: expected copies that agree on quality, 'fast' .* 'default' in copy 1"):
        check_envs_agree(copies("fast", "default"))
