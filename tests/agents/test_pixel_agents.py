"""Agents that learn a reward of images: what they see, how they are rewarded, and what they learn from it."""

import gymnasium as gym
import numpy as np
import pytest
import small
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents import GAIfOAgent, GAILAgent, ILPOAgent, IMRLAgent, PatchAILAgent, PMIILAgent, make_agent
from aime_gym.data import ActionEncoding, ObservationEncoding
from aime_gym.learned_reward.frame_stack import FrameStack
from aime_gym.learned_reward.transitions import ExpertTransitions
from aime_gym.learned_reward.vec_envs import EncodedVecEnv, LearnedRewardVecEnv
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters

AGENTS = ["gaifo", "gail", "patch-ail"]
SAC = {"algorithm": "sac", "algorithm_kwargs": {"learning_starts": 32, "batch_size": 16, "gradient_steps": 2}}
CPU = torch.device("cpu")


def make(name, task=toy.PixelPointMass, copies=2, **changes):
    return make_agent(name, DummyVecEnv([task] * copies), seed=0, device="cpu", **(small.TINY[name] | changes))


def some(observations, rows):
    """Of a stack of observations, whatever their sensors."""
    return {k: v[rows] for k, v in observations.items()} if isinstance(observations, dict) else observations[rows]


@pytest.mark.parametrize(
    ("name", "task", "options"),
    [
        ("gaifo", toy.PixelPointMass, {}),
        ("gaifo", toy.MixedPointMass, SAC),
        ("gail", toy.PixelPointMass, SAC),
        ("gail", toy.MixedPointMass, {}),
        ("patch-ail", toy.DiscretePixelPointMass, {}),
        ("patch-ail", toy.MixedPointMass, SAC),
        ("gaifo", toy.PixelPointMass, {"augment": False, "frame_stack": 1}),
    ],
)
def test_all_verbs_with_images(name, task, options, tmp_path):
    _, _, demos = toy.task(task, play=1, demos=2)
    agent = make(name, task, **options)
    agent.imitate(demos, 64 if "algorithm" not in options else 640, progress_bar=False)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", env=DummyVecEnv([task] * 2), demonstrations=demos, device="cpu")
    before = parameters(agent)
    assert_identical(before, parameters(loaded))
    for one in (agent, loaded):
        one.learn(576 if "algorithm" in options else 64, reset_num_timesteps=False)
    assert_identical(parameters(agent), parameters(loaded))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in parameters(agent).items())
    observations, actions = demos[0].observations, demos[0].actions
    rewards = agent.reward_fn(
        some(observations, slice(0, 5)), actions[:5] if name == "gail" else some(observations, slice(1, 6))
    )
    assert rewards.shape == (5,)
    assert np.isfinite(rewards).all()
    inferred = agent.infer_actions(demos)
    state = None
    for step in range(4):
        action, state = agent.predict(some(observations, step), state, deterministic=True)
        np.testing.assert_allclose(action, inferred[0].actions[step], atol=1e-5)


class Counting(gym.Env):
    """The number of the step as a grey image: 1 at the start, then 2, 3, and 4, which is the last."""

    observation_space = spaces.Box(0, 255, (12, 12, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 1
        return self.observe(), {}

    def observe(self):
        return np.full((12, 12, 3), self.steps, np.uint8)

    def step(self, action):
        self.steps += 1 + int(action)
        return self.observe(), 0.0, self.steps >= 4, False, {}


def frames(observation):
    """The numbers in stacks of three frames."""
    stacks = observation["observation"].reshape(-1, 9, 12, 12)
    return [tuple(int(stack[3 * frame, 0, 0]) for frame in range(3)) for stack in stacks]


def test_stacks_start_with_copies_and_end_with_the_true_last_frame():
    venv, rewarded_transitions = DummyVecEnv([Counting] * 2), []
    observations, actions = ObservationEncoding(venv.observation_space), ActionEncoding(venv.action_space)
    env = EncodedVecEnv(venv, observations, FrameStack(observations.shapes, 3), actions)

    def reward(obs, actions, next_obs, terminated):
        rewarded_transitions.append((frames(obs), frames(next_obs), terminated.tolist()))
        return np.zeros(2)

    rewarded = LearnedRewardVecEnv(env, reward)
    assert frames(rewarded.reset()) == [(1, 1, 1)] * 2
    kept, _, _, _ = rewarded.step(np.array([0, 1]))
    assert frames(kept) == [(1, 1, 2), (1, 1, 3)]
    stacked, _, dones, infos = rewarded.step(np.array([0, 0]))
    assert frames(stacked) == [(1, 2, 3), (1, 1, 1)]
    assert dones.tolist() == [False, True]
    assert frames(infos[1]["terminal_observation"]) == [(1, 3, 4)]
    rewarded.step(np.array([0, 0]))
    assert rewarded_transitions == [
        ([(1, 1, 1), (1, 1, 1)], [(1, 1, 2), (1, 1, 3)], [False, False]),
        ([(1, 1, 2), (1, 1, 3)], [(1, 2, 3), (1, 3, 4)], [False, True]),
        ([(1, 2, 3), (1, 1, 1)], [(2, 3, 4), (1, 1, 2)], [True, False]),
    ]
    assert frames(kept) == [(1, 1, 2), (1, 1, 3)]  # no later step rewrites it


def test_the_policy_remembers_images_and_nothing_else():
    agent = make("gaifo", toy.PixelPointMass)
    batch = np.random.default_rng(0).integers(256, size=(3, 4, 16, 16, 3), dtype=np.uint8)
    _, state = agent.predict(batch[0])
    assert len(state) == 1
    assert state[0].dtype == np.uint8
    for step in (1, 2):
        _, state = agent.predict(batch[step], state)
    np.testing.assert_array_equal(state[0], np.concatenate(list(batch), axis=-1).transpose(0, 3, 1, 2))
    vectors = make("gaifo", toy.PointMass)
    assert vectors.predict(np.zeros((3, 2), np.float32))[1] == ()


@pytest.mark.parametrize("kind", [IMRLAgent, PMIILAgent, ILPOAgent])
def test_agents_of_vectors_refuse_images(kind):
    with pytest.raises(NotImplementedError, match=rf"^observation_space: {kind.__name__} learns from vectors"):
        kind(toy.DiscretePixelPointMass())


@pytest.mark.parametrize("task", [toy.PointMass, toy.SensorsPointMass])
def test_patches_need_an_image(task):
    with pytest.raises(
        NotImplementedError, match=r"^observation_space: PatchAILAgent learns from images, got .* without"
    ):
        PatchAILAgent(task())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_stack": 0}, "frame_stack: expected at least 1, got 0"),
        ({"augment": 1}, "augment: expected True or False, got 1"),
        ({"image_encoder": "vit"}, "image_encoder: expected ha or stages or patch, got 'vit'"),
        ({"discriminator_layers": 9}, "discriminator_layers: expected images of at least 20 x 20 for 9 layers"),
    ],
)
def test_hyper_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make("patch-ail", **options)


def test_the_critic_alone_changes_what_is_seen():
    policy = make("gaifo", **SAC).learner
    assert not any("features_extractor" in name for name, _ in policy.actor.named_parameters())
    observation = {"observation": torch.randint(256, (4, 9, 16, 16), dtype=torch.uint8)}
    policy.actor(observation).sum().backward()
    encoder = list(policy.critic.features_extractor.parameters())
    assert all(parameter.grad is None for parameter in encoder)
    before = policy.actor(observation, deterministic=True)
    sum(q.sum() for q in policy.critic(observation, torch.zeros(4, 2))).backward()
    assert all(parameter.grad is not None for parameter in encoder)
    policy.critic.optimizer.step()
    assert not torch.equal(policy.actor(observation, deterministic=True), before)
    kept = make("gaifo", **SAC)  # what acts is a copy, which sees through its own critic
    assert kept.policy.actor.features_extractor.borrowed[0] is kept.policy.critic.features_extractor


def test_a_replay_buffer_of_images_stays_small():
    class Large(toy.PixelPointMass):
        observation_space = spaces.Box(0, 255, (84, 84, 3), np.uint8)

    algorithm = make("gaifo", Large, **SAC).trainer.algorithm
    buffer = algorithm.replay_buffer
    kept = [*buffer.observations.values(), *buffer.next_observations.values()]
    assert {values.dtype for values in kept} == {np.dtype(np.uint8)}
    assert 3e9 < sum(values.nbytes for values in kept) <= 4e9
    assert make("gaifo", toy.PointMass, **SAC).trainer.algorithm.buffer_size == 300_000


@pytest.mark.parametrize("name", AGENTS)
def test_the_expert_is_rewarded_more(name):
    """The reward has learnt against a beginner."""
    _, play, demos = toy.task(toy.PixelPointMass, play=6, demos=6)
    changes = {"discriminator_updates": 40, "learning_rate": 3e-3, "discriminator_hidden": 16, "timesteps": 256}
    agent = make(name, copies=8, **changes, algorithm_kwargs={"n_steps": 32, "batch_size": 64, "n_epochs": 1})
    agent.imitate(demos, progress_bar=False)
    encoding = agent.action_encoding if isinstance(agent, GAILAgent) else None
    rewarded = [
        agent.trainer.reward.reward(
            ExpertTransitions(trajectories, encoding, agent.trainer.frame_stack, CPU).sample(
                150, torch.Generator().manual_seed(0)
            )
        ).mean()
        for trajectories in (demos, play)
    ]
    # Most patches of this image are black, whatever is done.
    assert rewarded[0] > rewarded[1] + (0.03 if name == "patch-ail" else 0.1)
    assert isinstance(agent, PatchAILAgent) == (agent.discriminator.similarity is not None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GAIfOAgent, PatchAILAgent])
def test_learns_the_toy_task_from_images(kind):
    """Who does nothing has a score of 0.25."""
    _, _, demos = toy.task(toy.PixelPointMass, play=1, demos=10)
    ppo = {"learning_rate": 1e-3, "n_steps": 32, "batch_size": 64, "n_epochs": 5, "gamma": 0.9, "gae_lambda": 0.9}
    agent = kind(
        DummyVecEnv([toy.PixelPointMass] * 8),
        seed=0,
        algorithm="ppo",
        algorithm_kwargs=ppo,
        discriminator_hidden=32 if kind is GAIfOAgent else 16,
        discriminator_layers=2,
        discriminator_updates=8,
        learning_rate=1e-3,
        batch_size=64,
        policy_ema_decay=0.5,
        device="cpu",
    )
    agent.imitate([demo.without_actions() for demo in demos], 8192, progress_bar=False)
    assert toy.score(toy.PixelPointMass(), agent) > 0.5
