"""Each kind of bad input ends in one error that names argument, place, expected and got."""

import re
import warnings

import numpy as np
import pytest
from gymnasium import spaces

from aime_gym.data import check_trajectories
from aime_gym.types import Trajectory

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
STATE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (4, 4, 3), np.uint8)


def good(steps=5, *, observations=None, actions=None, rewards=None):
    return Trajectory(
        observations=np.zeros((steps + 1, 3), np.float32) if observations is None else observations,
        actions=np.zeros((steps, 2), np.float32) if actions is None else actions,
        rewards=np.zeros(steps, np.float32) if rewards is None else rewards,
    )


def check(trajectories, *, observation_space=STATE, action_space=BOX, need_actions=True, argument="play"):
    return check_trajectories(
        trajectories,
        argument=argument,
        observation_space=observation_space,
        action_space=action_space,
        need_actions=need_actions,
    )


def with_value(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


OBSERVATIONS = np.zeros((6, 3), np.float32)
ACTIONS = np.zeros((5, 2), np.float32)
BAD = {
    "empty dataset": ([], {}, "play: expected at least one trajectory, got an empty dataset"),
    "no sequence": (good(), {}, "play: expected a sequence of Trajectory, got Trajectory"),
    "another type": ([good(), OBSERVATIONS], {}, "play[1]: expected a Trajectory, got ndarray"),
    "shape": (
        [good(), good(observations=np.zeros((6, 4), np.float32))],
        {},
        "play[1].observations: expected shape (T+1, 3), got (6, 4)",
    ),
    "image for a state": (
        [good(observations=np.zeros((6, 3), np.uint8))],
        {},
        "play[0].observations: expected dtype float32, got uint8",
    ),
    "state for an image": (
        [good(observations=np.zeros((6, 4, 4, 3), np.float32))],
        {"observation_space": IMAGE},
        "play[0].observations: expected dtype uint8, got float32",
    ),
    "other integers for an image": (
        [good(observations=np.zeros((6, 4, 4, 3), np.uint16))],
        {"observation_space": IMAGE},
        "play[0].observations: expected dtype uint8, got uint16",
    ),
    "dict for an array": ([good(observations={"a": OBSERVATIONS})], {}, "got one array per sensor (a)"),
    "array for a dict": (
        [good()],
        {"observation_space": spaces.Dict({"a": STATE})},
        "play[0].observations: expected one array per sensor (a), got a single array",
    ),
    "other sensors": (
        [good(observations={"a": OBSERVATIONS, "c": OBSERVATIONS})],
        {"observation_space": spaces.Dict({"a": STATE, "b": STATE})},
        "play[0].observations: expected the sensors ['a', 'b'], got ['a', 'c'] (missing b; unknown c)",
    ),
    "shape of one sensor": (
        [good(observations={"a": OBSERVATIONS[:, :2]})],
        {"observation_space": spaces.Dict({"a": STATE})},
        "play[0].observations['a']: expected shape (T+1, 3), got (6, 2)",
    ),
    "NaN observation": (
        [good(observations=with_value(OBSERVATIONS, (4, 1), np.nan))],
        {},
        "play[0].observations: expected finite numbers, got nan at step 4, entry (1,) (1 such entries)",
    ),
    "infinite observation": (
        [good(observations=with_value(OBSERVATIONS, (0, 0), -np.inf))],
        {},
        "play[0].observations: expected finite numbers, got -inf at step 0",
    ),
    "overflow of the cast": (
        [good(observations=np.full((6, 3), 1e300))],
        {},
        "play[0].observations: expected finite numbers, got inf",
    ),
    "NaN reward": (
        [good(rewards=with_value(np.zeros(5), 2, np.nan))],
        {"need_actions": False},
        "play[0].rewards: expected finite numbers, got nan at step 2",
    ),
    "shape of rewards": ([good(rewards=np.zeros((5, 1)))], {}, "play[0].rewards: expected shape (T,), got (5, 1)"),
    "no actions": (
        [good(), good().without_actions()],
        {},
        "play[1].actions: expected one action per transition, got None",
    ),
    "shape of actions": (
        [good(actions=np.zeros((5, 3)))],
        {},
        "play[0].actions: expected shape (T, 2), got (5, 3)",
    ),
    "NaN action": (
        [good(actions=with_value(ACTIONS, (1, 1), np.nan))],
        {},
        "play[0].actions: expected finite numbers, got nan at step 1",
    ),
    "action outside": (
        [good(actions=with_value(ACTIONS, (3, 1), 1.001))],
        {},
        "got 1.001 at step 3, entry (1,)",
    ),
    "boolean actions": ([good(actions=ACTIONS.astype(bool))], {}, "play[0].actions: expected numbers, got dtype bool"),
    "float for Discrete": (
        [good(actions=np.zeros(5))],
        {"action_space": spaces.Discrete(3)},
        "play[0].actions: expected integers for Discrete(3), got dtype float64",
    ),
    "shape for Discrete": (
        [good(actions=np.zeros((5, 1), int))],
        {"action_space": spaces.Discrete(3)},
        "play[0].actions: expected shape (T,), got (5, 1)",
    ),
    "range of Discrete": (
        [good(actions=np.array([1, 2, 3, 4, 1]))],
        {"action_space": spaces.Discrete(3, start=1)},
        "play[0].actions: expected actions from 1 to 3, got 4 at step 3",
    ),
    "another action space": (
        [good()],
        {"action_space": spaces.MultiBinary(2)},
        "play[0].actions: expected a Box or Discrete action space, but the space is MultiBinary(2)",
    ),
    "another observation space": (
        [good()],
        {"observation_space": spaces.MultiBinary(3)},
        "play[0].observations: expected a Box observation space",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    trajectories, arguments, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        check(trajectories, **arguments)


def test_fewer_than_two_observations():
    with pytest.raises(ValueError, match="expected at least 2 observations, got 1"):
        Trajectory(np.zeros((1, 3)))


class Unreadable:
    """Actions that nobody may look at: only their number is known."""

    def __len__(self):
        return 5

    def __array__(self, *args, **kwargs):
        raise AssertionError("actions were read")

    def __getitem__(self, index):
        raise AssertionError("actions were read")


@pytest.mark.parametrize("actions", [np.full((5, 2), np.nan), np.full((5, 7), 1e9), Unreadable()])
def test_actions_of_demonstrations_are_dropped_unread(actions):
    (checked,) = check([good(actions=actions)], need_actions=False, argument="demos")
    assert checked.actions is None


def test_result_has_the_dtypes_of_the_spaces():
    (state,) = check([good(observations=np.ones((6, 3)), actions=np.full((5, 2), 0.1), rewards=np.ones(5))])
    assert state.observations.dtype == state.actions.dtype == state.rewards.dtype == np.float32
    assert state.actions[0, 0] == np.float32(0.1)

    image = np.arange(6 * 48, dtype=np.uint8).reshape(6, 4, 4, 3)
    (pixels,) = check(
        [good(observations=image, actions=np.arange(5, dtype=np.int32))],
        observation_space=IMAGE,
        action_space=spaces.Discrete(5),
    )
    assert pixels.observations is image  # neither copied nor converted
    assert pixels.actions.dtype == np.int64

    wide = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    (double,) = check([good()], observation_space=wide)
    assert double.observations.dtype == np.float64


def test_sensors_come_in_the_order_of_the_space():
    space = spaces.Dict({"b": STATE, "a": IMAGE})
    observations = {"b": OBSERVATIONS, "a": np.zeros((6, 4, 4, 3), np.uint8)}
    (checked,) = check([good(observations=observations)], observation_space=space)
    assert list(checked.observations) == list(space)


def test_rounding_is_not_outside():
    check([good(actions=np.full((5, 2), 1 + 1e-6))])
    with pytest.raises(ValueError, match="inside"):
        check([good(actions=np.full((5, 2), -1 - 1e-4))])


def test_unbounded_actions_are_free():
    space = spaces.Box(np.array([-np.inf, 0], np.float32), np.array([np.inf, np.inf], np.float32))
    check([good(actions=np.full((5, 2), 1e6))], action_space=space)
    with pytest.raises(ValueError, match="expected finite numbers"):
        check([good(actions=np.full((5, 2), np.inf))], action_space=space)
    with pytest.raises(ValueError, match=re.escape("got -1 at step 0, entry (1,)")):
        check([good(actions=np.full((5, 2), -1.0))], action_space=space)


def test_end_of_episode_survives():
    trajectory = Trajectory(OBSERVATIONS, ACTIONS, None, terminated=True)
    (checked,) = check([trajectory])
    assert checked.terminated
    assert not checked.truncated
    assert checked.rewards is None


# ---- how images were drawn ----


def drawn(*renderings):
    return [Trajectory(np.zeros((3, 4, 4, 3), np.uint8), rendering=rendering) for rendering in renderings]


def check_drawn(trajectories, rendering):
    return check_trajectories(
        trajectories,
        argument="demos",
        observation_space=IMAGE,
        action_space=BOX,
        need_actions=False,
        rendering=rendering,
    )


def test_images_drawn_otherwise_are_named():
    message = r"^demos\[1\].rendering: expected .*quality='fast', got quality='default'"
    with pytest.raises(ValueError, match=message):
        check_drawn(drawn("fast", "default"), "fast")


@pytest.mark.parametrize(("renderings", "rendering"), [(("fast", None), "fast"), (("fast", "default"), None)])
def test_what_is_unknown_passes(renderings, rendering):
    assert tuple(checked.rendering for checked in check_drawn(drawn(*renderings), rendering)) == renderings


def test_rendering_survives():
    (trajectory,) = drawn("fast")
    assert trajectory.without_actions().rendering == "fast"
    assert trajectory.with_actions(np.zeros((2, 2), np.float32)).rendering == "fast"


# Units


@pytest.mark.parametrize(
    ("scale", "offset", "dtype", "says"),
    [
        ((1, 1, 1), (0, 0, 0), np.float32, None),
        ((1, 1, 1), (0, 1e3, 0), np.float32, None),
        ((1, 1e-7, 1), (0, 0.02, 0), np.float32, None),  # an object that lies still
        ((1, 1, 1), (0, 1e8, 0), np.float64, "entry 1 moves by 0.5.* around 1e.08.*subtract the offset"),
        ((1, 1e5, 1e5), (0, 0, 0), np.float32, "entry 0 moves by 0.5"),
        ((1, 1, 1e4), (0, 0, 0), np.float32, "entry 2 goes from -.*, the space from -100 to 100; are they in other"),
    ],
)
def test_units_that_cannot_be_learnt_from_are_warned_of(scale, offset, dtype, says):
    values = (np.random.default_rng(0).uniform(-1, 1, (500, 3)) * scale + offset).astype(dtype)
    bound = np.array([np.inf, np.inf, 100], dtype)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_trajectories(
            [Trajectory(values)],
            argument="demos",
            observation_space=spaces.Box(-bound, bound, dtype=dtype),
            action_space=spaces.Discrete(2),
            need_actions=False,
        )
    if says is None:
        assert not said
    else:
        assert any(re.search(rf"^demos: .*observation.*{says}", str(warning.message)) for warning in said)


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"demos\[0\].observations: expected finite numbers"):
        check_trajectories(
            [Trajectory(np.full((3, 1), 1e300))],
            argument="demos",
            observation_space=spaces.Box(-np.inf, np.inf, (1,), np.float64),
            action_space=spaces.Discrete(2),
            need_actions=False,
        )
