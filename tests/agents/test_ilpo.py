"""ILPO: latent actions are the real ones under other names, and a few steps in the environment tell which."""

import gymnasium as gym
import numpy as np
import pytest
import small
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents import ILPOAgent
from aime_gym.data import collect
from aime_gym.models.latent_actions import LatentActionPolicy, latent_policy_losses
from aime_gym.testing import toy

MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
STEPS = 25


class Walk(gym.Env):
    """A point on a plane that makes a step in one of four directions, longer where it is further out."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(4, start=2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self.position.astype(np.float32), {}

    def step(self, action):
        self.position = self.position + (0.1 + 0.03 * np.abs(self.position).sum()) * MOVES[action - 2]
        self.steps += 1
        return self.position.astype(np.float32), -float(np.abs(self.position).max()), False, self.steps == STEPS, {}


def home(position):
    """To the origin, along the axis on which it is further away."""
    axis = int(np.abs(position).argmax())
    return 2 + 2 * axis + int(position[axis] > 0)


@pytest.fixture(scope="module")
def demos():
    """As in the paper, a quarter of the demonstrated actions is random."""
    rng = np.random.default_rng(0)
    return collect(
        Walk(), lambda s: int(rng.integers(2, 6)) if rng.random() < 0.25 else home(s), 40, seed=1, progress=False
    )


@pytest.fixture(scope="module", params=[None, 7], ids=["as many latents as actions", "more latents"])
def learnt(request, demos):
    agent = ILPOAgent(DummyVecEnv([Walk] * 2), seed=0, latents=request.param, updates=800, learning_rate=1e-3)
    return agent.imitate(demos, 600, progress_bar=False)


def transitions(trajectories):
    before = np.concatenate([t.observations[:-1] for t in trajectories])
    after = np.concatenate([t.observations[1:] for t in trajectories])
    return torch.from_numpy(before), torch.from_numpy(after)


def test_each_latent_action_is_one_real_action(learnt):
    play = collect(Walk(), "random", 20, seed=3, progress=False)
    with torch.no_grad():
        latents = learnt.policy.nearest_latent_action(*transitions(play)).numpy()
    actions = np.concatenate([t.actions for t in play]) - 2
    counts = np.zeros((learnt.policy.latents, 4))
    np.add.at(counts, (latents, actions), 1)
    assert counts.max(1).sum() / counts.sum() > 0.95  # a latent action says which real one it is
    assert set(counts.argmax(1)[counts.sum(1) > 0]) == {0, 1, 2, 3}


def test_the_remapping_finds_the_real_actions(learnt, demos):
    inferred = learnt.infer_actions([demo.without_actions() for demo in demos])
    right = np.concatenate([one.actions == other.actions for one, other in zip(inferred, demos, strict=True)])
    assert right.mean() > 0.95


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_policy_imitates(learnt, deterministic):
    env = Walk()

    def mean_return(policy, **options):
        return np.mean([t.episode_return for t in collect(env, policy, 30, seed=4, progress=False, **options)])

    random, best = mean_return("random"), mean_return(home)
    score = (mean_return(learnt, deterministic=deterministic) - random) / (best - random)
    assert score > (0.8 if deterministic else 0.5)


def test_losses_against_a_plain_reference():
    generator = torch.Generator().manual_seed(0)
    changes, logits, caused = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in [(5, 3), (5, 4), (5, 4, 3)]
    )
    nearest, expected = latent_policy_losses(changes, logits, caused)
    d, g, p = changes.detach().numpy(), caused.detach().numpy(), logits.softmax(-1).detach().numpy()
    plain = [min(((d[n] - g[n, z]) ** 2).sum() for z in range(4)) for n in range(5)]
    assert nearest.item() == pytest.approx(np.mean(plain))
    plain = [((d[n] - sum(p[n, z] * g[n, z] for z in range(4))) ** 2).sum() for n in range(5)]
    assert expected.item() == pytest.approx(np.mean(plain))
    # The one trains g, and of it the closest alone; the other pi.
    of_g, of_pi = torch.autograd.grad(nearest, [caused, logits], allow_unused=True)
    assert of_pi is None
    assert ((of_g != 0).any(-1).sum(-1) == 1).all()
    of_g, of_pi = torch.autograd.grad(expected, [caused, logits], allow_unused=True)
    assert of_g is None
    assert (of_pi != 0).all()


def test_the_closest_latent_action_is_the_one_that_leads_there():
    torch.manual_seed(0)
    policy = LatentActionPolicy(3, 5).double()
    observations = torch.randn(20, 3, dtype=torch.float64)
    policy.fit_standardizers(observations, 0.1 * torch.randn(20, 3, dtype=torch.float64))
    caused = policy(observations)[1] * policy.changes.std + policy.changes.mean
    for z in range(5):
        assert (policy.nearest_latent_action(observations, observations + caused[:, z]) == z).all()


@pytest.mark.parametrize("copies", [1, 3])
def test_it_sees_where_an_episode_ended_and_not_where_the_next_begins(demos, copies):
    agent = ILPOAgent(DummyVecEnv([Walk] * copies), seed=0, updates=1)
    seen = []

    class Spy(LatentActionPolicy):
        def nearest_latent_action(self, observations, next_observations):
            seen.append((next_observations - observations).abs())
            return super().nearest_latent_action(observations, next_observations)

    agent.imitate(demos, 1, progress_bar=False)
    agent.policy.__class__ = Spy
    agent.learn(4 * STEPS * copies)
    moves = torch.cat(seen)
    assert len(moves) == 4 * STEPS * copies
    assert ((moves > 1e-6).sum(-1) == 1).all()  # along one axis; a new start is off both


def test_it_explores_as_much_as_it_is_told(demos):
    for exploration in (0.0, 1.0):
        agent = ILPOAgent(Walk(), seed=0, updates=1, exploration=exploration).imitate(demos, 400, progress_bar=False)
        actions = agent.memory[2]
        assert len(actions) == 400
        shares = torch.bincount(actions, minlength=4) / len(actions)
        if exploration:
            assert ((shares > 0.15) & (shares < 0.35)).all()
        else:
            assert shares.max() > 0.35


def test_continuous_actions_are_refused():
    with pytest.raises(NotImplementedError, match=r"^action_space: ILPOAgent expects Discrete, got Box"):
        ILPOAgent(toy.PointMass())


def test_play_teaches_nothing_and_it_says_so(demos, tmp_path):
    agent = ILPOAgent(Walk(), seed=0, **small.TINY["ilpo"])
    agent.set_logger(configure(str(tmp_path), ["log"]))
    agent.pretrain(demos, progress_bar=False)
    agent.logger.close()
    assert agent.num_updates == 0
    assert "nothing to learn from play" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "latents: expected at least 1, got 0"),
        ({"latents": 2.5}, "latents: expected a whole number, got 2.5"),
        ({"updates": 0}, "updates: expected at least 1, got 0"),
        ({"timesteps": 0}, "timesteps: expected at least 1, got 0"),
        ({"exploration": 1.5}, "exploration: expected 0 to 1, got 1.5"),
    ],
)
def test_hyper_parameters_are_named(options, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        ILPOAgent(Walk(), **options)


def test_the_log_has_both_steps(demos, tmp_path):
    agent = ILPOAgent(Walk(), seed=0, updates=100, timesteps=100)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.imitate(demos, progress_bar=False)
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    expected = {"policy/nearest", "policy/expected", "remap/loss", "remap/accuracy", "rollout/ep_rew_mean"}
    assert expected | {"time/total_timesteps", "rollout/ep_len_mean"} <= set(header)
