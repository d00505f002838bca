"""What an agent's environment says of the images that it shows, and of the videos that it can be shown."""

import io

import gymnasium as gym
import numpy as np
import pytest
import small
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from aime_gym import make_agent
from aime_gym.agents import BCOAgent
from aime_gym.agents.environments import check_envs_agree, rendering_of_envs, shown_frames
from aime_gym.agents.registry import load_agent
from aime_gym.data import collect, save_video
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


class Batched(VecEnv):
    """A vectorised environment of one's own: all copies in one array, and no more than SB3 demands."""

    def __init__(self, terminal=True):
        super().__init__(3, toy.PointMass().observation_space, toy.PointMass().action_space)
        self.terminal, self.seen = terminal, np.zeros((3, 2), np.float32)

    def reset(self):
        self.seen[:] = self.t = 0
        return self.seen  # the same buffer again and again

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        self.seen += 0.1 * self.actions
        self.t += 1
        dones = np.full(3, self.t == 12)
        last = [{"terminal_observation": row.copy()} if self.terminal else {} for row in self.seen]
        if self.t == 12:
            self.reset()
        return self.seen, np.zeros(3, np.float32), dones, last if dones.all() else [{} for _ in dones]

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        raise AttributeError(attr_name)

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    def env_method(self, method_name, *method_args, indices=None, **method_kwargs):
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class, indices=None):
        raise NotImplementedError


@pytest.mark.filterwarnings("ignore:.*no play data")
@pytest.mark.parametrize("name", ["bco", "gaifo"])
def test_a_vectorised_environment_of_one_s_own(name):
    agent = make_agent(name, Batched(), seed=0, demonstrations=toy.task().demos, **small.TINY[name])
    agent.learn(60)
    assert agent.num_timesteps >= 60
    other = make_agent(name, Batched(terminal=False), seed=0, demonstrations=toy.task().demos, **small.TINY[name])
    with pytest.raises(ValueError, match=r"^env: expected info\['terminal_observation'\] at the end of an episode"):
        other.learn(60)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["aime", "bco", "bc", "gaifo"])
def test_sensors_of_any_name(name):
    names = ["a.b", "keys", "type", "", "training", "robot/arm", "x", *(f"{'joint_' * 8}{index}" for index in range(2))]
    space = spaces.Dict({sensor: spaces.Box(-9, 9, (2,), np.float32) for sensor in names})

    class Sensors(gym.ObservationWrapper):
        observation_space = space

        def observation(self, observation):
            return dict.fromkeys(names, observation)

    env = Sensors(toy.PointMass())
    play = collect(env, "play", 3, seed=0, progress=False)
    agent = make_agent(name, env, seed=0, verbose=1, play=play, demonstrations=play, **small.TINY[name])
    agent.learn(32 if name == "gaifo" else 0)
    file = io.BytesIO()
    agent.save(file)
    loaded = load_agent(file)
    observation, _ = env.reset(seed=0)
    (one, _), (other, _) = (known.predict(observation, deterministic=True) for known in (agent, loaded))
    np.testing.assert_array_equal(one, other)
