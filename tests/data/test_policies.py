"""Play knows the action space and nothing else; the scripted expert sees what the simulator sees."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from aime_gym import make_env
from aime_gym.data import HeldRandomPolicy, ScriptedExpert, collect

BOX = spaces.Box(np.array([-1, 0, -3], np.float32), np.array([1, 4, -1], np.float32))


def run_lengths(actions):
    changed = np.any(np.diff(actions, axis=0) != 0, axis=1)
    edges = np.concatenate([[0], np.flatnonzero(changed) + 1, [len(actions)]])
    return np.diff(edges)[:-1]  # the last one is cut by the end of the recording


def normalised(actions):
    return (actions - (BOX.low + BOX.high) / 2) / ((BOX.high - BOX.low) / 2)


def test_play_holds_actions_of_the_given_magnitudes():
    policy = HeldRandomPolicy(BOX, magnitudes=(0.05, 0.5), hold=(2, 4), seed=0)
    actions = np.stack([policy() for _ in range(6000)])
    assert actions.dtype == np.float32
    assert all(BOX.contains(action) for action in actions)
    lengths = run_lengths(actions)
    assert set(lengths) == {2, 3, 4}
    assert np.all(np.bincount(lengths)[2:] / len(lengths) > 0.28)

    _, first = np.unique(actions, axis=0, return_index=True)
    size = np.abs(normalised(actions[first])).max(axis=1)
    assert size.max() <= 0.5 + 1e-6
    # The largest of three uniform numbers is below a tenth with probability 0.001.
    assert np.mean(size <= 0.05 + 1e-6) == pytest.approx(0.5, abs=0.05)
    assert np.all(np.abs(normalised(actions[first]).mean(axis=0)) < 0.03)


def test_uniform_policy_fills_the_box():
    policy = HeldRandomPolicy(BOX, magnitudes=(1.0,), hold=(1, 1), seed=0)
    entries = normalised(np.stack([policy() for _ in range(4000)]))
    counts = np.apply_along_axis(lambda values: np.histogram(values, 10, (-1, 1))[0], 0, entries)
    assert counts.min() > 300
    assert counts.max() < 500


def test_discrete_play():
    policy = HeldRandomPolicy(spaces.Discrete(3, start=5), hold=(3, 3), seed=0)
    actions = np.array([policy() for _ in range(900)]).reshape(300, 3)
    assert np.all(actions == actions[:, :1])
    assert actions.dtype == np.int64
    assert np.all(np.bincount(actions[:, 0])[5:] > 70)
    assert set(actions[:, 0]) == {5, 6, 7}


def test_reset_lets_go_and_seeds():
    policy = HeldRandomPolicy(BOX, hold=(50, 50), seed=3)
    held = policy()
    np.testing.assert_array_equal(policy(), held)
    policy.reset()
    assert np.any(policy() != held)
    policy.reset(seed=3)
    np.testing.assert_array_equal(policy(), held)


def test_held_action_cannot_be_changed_from_outside():
    policy = HeldRandomPolicy(BOX, hold=(5, 5), seed=0)
    first = policy()
    kept = first.copy()
    first[:] = 99
    np.testing.assert_array_equal(policy(), kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action_space": spaces.Box(-np.inf, np.inf, (2,))}, "action_space: expected a Box with finite bounds"),
        ({"action_space": spaces.MultiBinary(2)}, "action_space: expected Box or Discrete"),
        ({"magnitudes": ()}, "magnitudes: expected"),
        ({"magnitudes": (0.5, 2.0)}, "magnitudes: expected"),
        ({"hold": (0, 3)}, "hold: expected"),
        ({"hold": (4, 3)}, "hold: expected"),
    ],
)
def test_bad_play(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeldRandomPolicy(**({"action_space": BOX} | arguments))


@pytest.mark.parametrize("task", ["reach-v3", "button-press-v3"])
def test_expert_sees_what_the_simulator_returned(task):
    env = make_env(task, action_repeat=1)
    expert = ScriptedExpert(env)
    assert expert.task == task
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        for _ in range(4):
            seen = expert.raw_observation()
            np.testing.assert_array_equal(seen.astype(np.float32), observation)
            np.testing.assert_array_equal(expert.raw_observation(), seen)  # looking changes nothing
            observation, *_ = env.step(expert())


def test_watching_does_not_disturb_the_episode():
    def rollout(watch):
        env = make_env("reach-v3")
        expert = ScriptedExpert(env)
        observations = [env.reset(seed=0)[0]]
        env.action_space.seed(0)
        for _ in range(5):
            if watch:
                expert()
            observations.append(env.step(env.action_space.sample())[0])
        return np.stack(observations)

    np.testing.assert_array_equal(rollout(True), rollout(False))


def test_expert_succeeds_behind_position_only():
    env = make_env("reach-v3", modality="position")
    successes = []

    class UpdateCallbacks(gym.Wrapper):
        def step(self, action):
            result = super().step(action)
            if result[2] or result[3]:
                successes.append(result[4]["is_success"])
            return result

    demos = collect(UpdateCallbacks(env), "expert", 10, seed=0, progress=False)
    assert successes == [True] * 10
    assert min(demo.episode_return for demo in demos) > 1500
    assert all(env.action_space.contains(action) for demo in demos for action in demo.actions)


def test_expert_needs_metaworld():
    with pytest.raises(ValueError, match=r"env: expected a Meta-World task.*got Pendulum-v1"):
        ScriptedExpert(gym.make("Pendulum-v1"))
