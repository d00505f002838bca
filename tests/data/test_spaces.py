"""Action spaces of every width and dtype, and spaces in files."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from aime_gym.data import ActionEncoding, HeldRandomPolicy, ObservationEncoding, check_trajectories, collect
from aime_gym.data.spaces import read_space, write_space
from aime_gym.testing import toy

INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.int64]


class Taking(gym.Env):
    """Takes actions of a space, and nothing else; an episode has 40 steps."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, space):
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), 0.0, False, self.t >= 40, {}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_as_wide_as_their_dtype(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    encoding = ActionEncoding(spaces.Box(low, high, (3,), dtype))
    actions = encoding.decode(np.array([[-1, 0, 1], [-2, 0.5, 2]], np.float32))
    assert actions.dtype == dtype
    assert actions[0].tolist()[::2] == actions[1].tolist()[::2] == [low, high]
    assert low < actions[0, 1] < actions[1, 1] < high
    np.testing.assert_allclose(encoding.encode(actions), [[-1, 0, 1], [-1, 0.5, 1]], atol=0.01)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("policy", ["play", "random"])
def test_integers_are_played_to_their_bounds(dtype, policy):
    env = Taking(spaces.Box(1, 4, (2,), dtype))
    (first, *others) = collect(env, policy, 10, seed=0, progress=False)
    played = np.concatenate([episode.actions for episode in (first, *others)])
    assert set(np.unique(played)) == {1, 2, 3, 4}
    wide = Taking(spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, (2,), dtype))
    collect(wide, policy, 2, seed=0, progress=False)


def test_numbers_between_integers_are_rounded():
    env = Taking(spaces.Box(0, 9, (2,), np.int32))
    (episode,) = collect(env, lambda observation: np.array([1.7, 20.0]), 1, progress=False)
    assert episode.actions[0].tolist() == [2, 9]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_any_dtype_of_discrete_actions(dtype):
    env = Taking(spaces.Discrete(3, start=1, dtype=dtype))
    for policy in ("play", lambda observation: env.action_space.sample()):
        (episode,) = collect(env, policy, 1, seed=0, progress=False)
        assert episode.actions.dtype == np.int64
    assert ActionEncoding(env.action_space).decode(np.eye(3)).dtype == dtype
    with pytest.raises(ValueError, match="policy: expected one action in"):
        collect(env, lambda observation: 0, 1, progress=False)


@pytest.mark.parametrize("bound", [2e38, float(np.finfo(np.float32).max), 1e300, np.inf])
def test_bounds_that_nothing_can_be_scaled_by_are_named(bound):
    space = spaces.Box(-bound, bound, (2,), np.float64)
    for refuse in (ActionEncoding, HeldRandomPolicy):
        with pytest.raises(ValueError, match="^action_space: expected a Box"):
            refuse(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, np.inf, (2,), np.float32),
        spaces.Box(0, 255, (8, 8, 3), np.uint8),
        spaces.Box(np.array([1e-300, -5]), np.array([1, 7.1]), dtype=np.float64),
        spaces.Discrete(3, start=-1, dtype=np.int32),
        spaces.Dict({"a.b": spaces.Box(0, 1, (1,)), "": spaces.Box(-3, 3, (2,), np.float64)}),
    ],
)
def test_a_space_comes_back(space):
    assert read_space(write_space(space)) == space


# Numbers from the environment that are none


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_observation_that_is_not_finite_is_named(value):
    encoding = ObservationEncoding(spaces.Dict({"a": spaces.Box(-9, 9, (2,), np.float64)}))
    with pytest.raises(
        ValueError, match=r"^observation: expected finite numbers from the environment.*'a', entry \(1,\)"
    ):
        encoding.encode({"a": np.array([0, value])}, "cpu")


def test_ordinary_actions_are_encoded_as_ever():
    env, play, _ = toy.task()
    checked = check_trajectories(
        play, argument="play", observation_space=env.observation_space, action_space=env.action_space, need_actions=True
    )
    encoding = ActionEncoding(spaces.Box(-2.0, 6.0, (2,), np.float32))
    actions = checked[0].actions
    np.testing.assert_array_equal(encoding.encode(actions), 2 * (actions + 2) / 8 - 1)
