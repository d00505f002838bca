"""Rewards in place of the task's: what they rank, whom they pay, and what they never see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from torch.distributions import Normal, kl_divergence

from aime_gym.data import TrajectoryDataset, collect
from aime_gym.model_based.surrogate_rewards import (
    EmbeddedSequences,
    EpisodeReward,
    LatentDiscriminatorReward,
    ViperReward,
    symlog,
)
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.world_model import WorldModel
from aime_gym.testing import toy
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Trajectory

CPU = torch.device("cpu")
SMALL = WorldModelConfig(deter=32, stoch=8, hidden=32, decoder_hidden=32)
E = 3


def fit():
    counter = SimpleNamespace(num_updates=0, num_timesteps=0)
    return TrainingLoop(counter, Logger(None, []), torch.Generator().manual_seed(0), progress_bar=False)


def budget(**changes):
    given = {
        "reward_updates": 300,
        "batch_size": 16,
        "sequence_length": 16,
        "max_grad_norm": 100.0,
        "decay_learning_rate": True,
    }
    return SimpleNamespace(**given | {"model_learning_rate": 1e-3, "demo_start_fraction": 0.25} | changes)


def viper(config=SMALL, sensors=None, of=None):
    """A reward with first weights, in the units of some play."""
    torch.manual_seed(0)
    model = WorldModel(config, sensors or {"observation": (2,)}, 2)
    model.fit_standardizers(TrajectoryDataset(of or toy.task().play, None).observations)
    return ViperReward(model, CPU)


def test_symlog_is_odd_and_grows_as_a_logarithm():
    x = torch.tensor([-1e4, -1.0, 0.0, 1e-4, np.e - 1], dtype=torch.float64)
    torch.testing.assert_close(symlog(x), torch.sign(x) * torch.log(1 + x.abs()))
    torch.testing.assert_close(symlog(-x), -symlog(x))
    assert symlog(x)[-1] == 1


def test_viper_prefers_the_experts_episodes_to_random_ones():
    env, play, demos = toy.task(play=12, demos=16)
    reward = viper()
    reward.fit(TrajectoryDataset(demos[:10], None), fit(), budget())
    random = collect(env, "random", 10, seed=9, progress=False)
    worst = min(reward.labels(episode).sum() for episode in demos[10:])  # it has not seen these
    assert worst > max(reward.labels(episode).sum() for episode in random)
    assert worst > max(reward.labels(episode).sum() for episode in play)


def test_viper_learns_from_the_agents_units_and_leaves_its_model_alone():
    torch.manual_seed(0)
    model = WorldModel(SMALL, {"observation": (2,)}, 2)
    model.fit_standardizers({"observation": 7 + 3 * torch.randn(100, 2)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reward = ViperReward(model, CPU)
    reward.fit(TrajectoryDataset(toy.task().demos, None), fit(), budget(reward_updates=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for name, tensor in model.standardizers.state_dict().items():
        assert torch.equal(tensor, reward.model.standardizers.state_dict()[name])
    assert reward.model.action_size == 0


@pytest.mark.parametrize("sigma", [0.1, None], ids=["fixed sigma", "learned sigma"])
def test_the_evidence_equals_a_plain_version(sigma):
    """One record at a time, in float64; of the Gaussian's density all but its constants."""
    config = WorldModelConfig(deter=6, stoch=3, hidden=5, decoder_hidden=5, sigma=sigma)
    demos = toy.task().demos
    reward = viper(config, of=demos)
    model = reward.model.double()
    cut = [demos[0], Trajectory(demos[1].observations[:9])]  # side by side, the second is padded
    dataset = TrajectoryDataset(cut, None)
    dataset.observations = {name: values.double() for name, values in dataset.observations.items()}
    expected = []
    with torch.no_grad():
        for episode in cut:
            h, s = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
            for observation in torch.from_numpy(episode.observations).double():
                standard = model.standardizers["observation"](observation[None])
                h = model.rssm.cell(model.rssm.input_layer(s), h)
                prior, embedding = model.rssm.prior(h), model.encoder(standard)
                posterior = model.rssm.posterior(h, model.rssm.prepare(embedding))
                s = posterior.mean
                decoded = model.decoders["observation"](torch.cat([h, s], -1))
                constants = 0.5 * np.log(2 * np.pi) * 2 + (0 if sigma is None else 2 * np.log(sigma))
                likelihood = Normal(decoded.mean, decoded.std).log_prob(standard).sum() + constants
                expected.append(likelihood - kl_divergence(Normal(*posterior), Normal(*prior)).sum())
    torch.testing.assert_close(reward.evidence(dataset), torch.stack(expected), rtol=1e-12, atol=1e-10)


def test_viper_pays_for_transitions_and_not_for_the_reset():
    demo = toy.task().demos[0]
    reward = viper()
    evidence = reward.evidence(TrajectoryDataset([demo], None))
    assert reward.labels(demo).shape == (len(demo),) == (len(evidence) - 1,)
    np.testing.assert_array_equal(reward.labels(demo), symlog(evidence[1:]).numpy())
    # What came before is remembered: an episode that starts elsewhere is another story.
    later = reward.labels(Trajectory(demo.observations[5:]))
    assert not np.allclose(later, reward.labels(demo)[5:])


def test_viper_sees_no_actions():
    demo = toy.task().demos[0]
    reward = viper()
    poisoned = demo.with_actions(np.full_like(demo.actions, np.nan))
    np.testing.assert_array_equal(reward.labels(poisoned), reward.labels(demo.without_actions()))


def test_viper_of_sensors_and_its_state():
    demos = toy.demonstrations(toy.SensorsPointMass(), 2)
    one, other = (viper(sensors={"horizontal": (1,), "vertical": (1,)}, of=demos) for _ in range(2))
    one.fit(TrajectoryDataset(demos, None), fit(), budget(reward_updates=2))
    assert one.labels(demos[0]).shape == (len(demos[0]),)
    assert not np.array_equal(one.labels(demos[0]), other.labels(demos[0]))
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.labels(demos[0]), other.labels(demos[0]))
    assert one.relabel(torch.zeros(4, 2, E)) is None  # its labels hold


# ---- the discriminator ----


def walk(drift, batches=16, records=12, seed=0):
    """Embeddings that drift: where they are says little, where they go says it all."""
    generator = torch.Generator().manual_seed(seed)
    start = 2 * torch.randn(1, batches, E, generator=generator)
    noise = 0.1 * torch.randn(records, batches, E, generator=generator)
    steps = torch.arange(records)[:, None, None] - records / 2
    return EmbeddedSequences(start + drift * steps + noise, torch.ones(records, batches, dtype=torch.bool))


def trained(expert, agent, updates=200):
    torch.manual_seed(0)
    reward = LatentDiscriminatorReward(E, 1e-3, CPU)
    reward.optimizer.optimizers[0].param_groups[0]["lr"] = 1e-3
    generator, metrics = torch.Generator().manual_seed(0), {}
    for seed in range(updates):
        metrics = reward.update(expert(seed), agent(seed + 10_000), generator)
    return reward, metrics


def test_the_discriminator_pays_for_going_where_the_expert_goes():
    reward, metrics = trained(lambda seed: walk(0.5, seed=seed), lambda seed: walk(-0.5, seed=seed))
    expert, agent = (reward.relabel(walk(drift, seed=77_777).embeddings)[1:] for drift in (0.5, -0.5))
    assert expert.mean() > 0.4
    assert agent.mean() < -0.4
    assert (expert > 0).float().mean() > 0.9
    assert (agent < 0).float().mean() > 0.9
    assert metrics["expert_logit"] > metrics["agent_logit"]
    assert metrics["discriminator_loss"] < np.log(2)


def test_the_discriminator_prefers_nobody_where_both_do_the_same():
    reward, metrics = trained(lambda seed: walk(0.5, seed=seed), lambda seed: walk(0.5, seed=seed))
    logits = torch.cat([reward.relabel(walk(0.5, seed=seed).embeddings)[1:] for seed in range(77_000, 77_020)])
    assert logits.mean().abs() < 0.1
    assert abs(metrics["discriminator_loss"] - np.log(2)) < 0.1


def test_padding_never_reaches_the_discriminator():
    """Whatever stands after the end of a trajectory, the same steps follow."""
    states = []
    for filling in (0.0, float("nan")):
        torch.manual_seed(0)
        reward, generator = LatentDiscriminatorReward(E, 1e-3, CPU), torch.Generator().manual_seed(0)
        for _ in range(3):
            batches = []
            for drift in (0.5, -0.5):
                batch = walk(drift)
                batch.valid[5:, ::2] = False
                batches.append(
                    EmbeddedSequences(batch.embeddings.masked_fill(~batch.valid[..., None], filling), batch.valid)
                )
            reward.update(*batches, generator)
        states.append(reward.discriminator.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_batches_of_unequal_size_are_compared_in_equal_numbers():
    """A batch of the agent's that ends at once has no pair, and many of the expert's do not outweigh the rest."""
    torch.manual_seed(0)
    reward, agent = LatentDiscriminatorReward(E, 1e-3, CPU), walk(0.5, batches=4)
    agent.valid[2:] = False
    metrics = reward.update(walk(0.5, batches=32), agent, torch.Generator().manual_seed(0))
    assert all(np.isfinite(float(value)) for value in metrics.values())


def test_a_pair_is_rewarded_on_arriving():
    torch.manual_seed(0)
    reward, embeddings = LatentDiscriminatorReward(E, 1e-3, CPU), walk(0.5).embeddings
    rewards = reward.relabel(embeddings)
    assert rewards.shape == embeddings.shape[:2]
    assert not rewards[0].any()
    for t in range(1, len(embeddings)):
        pair = torch.cat([embeddings[t - 1], embeddings[t]], dim=-1)
        torch.testing.assert_close(rewards[t], reward.discriminator.from_standardized(pair))
    assert reward.labels(toy.task().demos[0]) is None  # only known when it is asked


def test_the_state_of_a_discriminator_is_all_of_it():
    torch.manual_seed(0)
    one, other = LatentDiscriminatorReward(E, 1e-3, CPU), LatentDiscriminatorReward(E, 1e-3, CPU)
    one.update(walk(0.5), walk(-0.5), torch.Generator().manual_seed(0))
    other.load_state_dict(one.state_dict())
    for reward in (one, other):
        reward.update(walk(0.5), walk(-0.5), torch.Generator().manual_seed(1))
    embeddings = walk(0.5, seed=5).embeddings
    assert torch.equal(one.relabel(embeddings), other.relabel(embeddings))


# ---- a function of one's own ----


def test_a_function_is_asked_about_transitions():
    demo = toy.task().demos[0]
    rewards = EpisodeReward(lambda obs, next_obs: np.abs(obs).sum(-1) - np.abs(next_obs).sum(-1)).labels(demo)
    distance = np.abs(demo.observations).sum(-1)
    np.testing.assert_allclose(rewards, distance[:-1] - distance[1:], rtol=1e-6)
    assert rewards.dtype == np.float32


def test_a_function_of_sensors_gets_a_dict():
    demo = toy.demonstrations(toy.SensorsPointMass(), 1)[0]
    rewards = EpisodeReward(lambda obs, next_obs: obs["vertical"][:, 0] + next_obs["horizontal"][:, 0]).labels(demo)
    np.testing.assert_allclose(
        rewards, demo.observations["vertical"][:-1, 0] + demo.observations["horizontal"][1:, 0], rtol=1e-6
    )


def test_a_functions_own_buffer_may_change_later():
    demo, buffer = toy.task().demos[0], np.zeros(toy.STEPS, np.float32)
    rewards = EpisodeReward(lambda obs, next_obs: buffer).labels(demo)
    buffer += 1
    assert not rewards.any()


def test_a_function_cannot_change_what_happened():
    demo = toy.task().demos[0]
    before = demo.observations.copy()

    def careless(obs, next_obs):
        next_obs -= obs
        return next_obs.sum(-1)

    EpisodeReward(careless).labels(demo)
    np.testing.assert_array_equal(demo.observations, before)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda obs, next_obs: obs, r"expected rewards of shape \(30,\), got \(30, 2\)"),
        (lambda obs, next_obs: obs[1:, 0], r"expected rewards of shape \(30,\), got \(29,\)"),
        (lambda obs, next_obs: 0.0, r"expected rewards of shape \(30,\), got \(\)"),
        (lambda obs, next_obs: obs[:, 0] * np.nan, "expected finite rewards, got nan"),
        (lambda obs, next_obs: np.full(30, 1e300), "expected finite rewards, got inf"),
        (lambda obs, next_obs: [[1.0], [1.0, 2.0]], "expected numbers, got list"),
        (lambda obs, next_obs: "much", "expected numbers, got str"),
        (lambda obs, next_obs: {"reward": obs[:, 0]}, "expected numbers, got dict"),
    ],
)
def test_rewards_that_are_none_are_named(reward, message):
    with pytest.raises(ValueError, match=f"^reward: {message}"):
        EpisodeReward(reward).labels(toy.task().demos[0])


def test_a_function_that_a_file_left_behind_is_asked_for():
    with pytest.raises(ValueError, match="^reward: expected the function that this agent learns from, .*to load"):
        EpisodeReward(None).labels(toy.task().demos[0])
