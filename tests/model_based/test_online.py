"""What one update of AIME's online phase draws, moves and leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aime_gym.data import ActionEncoding, TrajectoryDataset
from aime_gym.model_based.config import AIMEConfig, OnlineConfig
from aime_gym.model_based.online import JointSampler, OnlineImitation
from aime_gym.model_based.surrogate_rewards import EpisodeReward, LatentDiscriminatorReward
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.policies import make_latent_policy
from aime_gym.models.world_model import WorldModel
from aime_gym.testing import toy
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import Trajectory

CPU = torch.device("cpu")
ENCODING = ActionEncoding(toy.PointMass.action_space)
CONFIG = AIMEConfig(
    world_model=WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8),
    sequence_length=8,
    batch_size=6,
    imagination_horizon=3,
    imagination_starts=7,
)


def episode(value, steps=toy.STEPS, **changes):
    """Whose observations, actions and rewards say whose it is, and when."""
    count = np.arange(steps + 1, dtype=np.float32)
    given = {
        "observations": np.stack([np.full(steps + 1, value, np.float32), count], axis=1),
        "actions": np.full((steps, 2), value / 100, np.float32),
        "rewards": value + count[1:],
    }
    return Trajectory(**given | changes)


def dataset(*episodes):
    return TrajectoryDataset(list(episodes), ENCODING)


def sampler(play, experience, *, play_ratio=0.5, seed=0, **changes):
    return JointSampler(
        play, experience, replace(CONFIG, **changes), play_ratio=play_ratio, start_fraction=0.5,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


# ---- batches of play and of experience ----


@pytest.mark.parametrize(("ratio", "from_play"), [(0.0, 0), (0.1, 0), (0.25, 1), (0.5, 3), (0.9, 5)])
def test_a_share_of_a_batch_is_play(ratio, from_play):
    joint = sampler(dataset(episode(1)), dataset(episode(2)), play_ratio=ratio)
    assert joint.experienced == 6 - from_play
    for _ in range(3):
        batch, labels = joint.sample()
        assert batch.valid.shape == labels.rewards.shape == (8, 6)
        assert batch.observations["observation"][0, :, 0].tolist() == [1] * from_play + [2] * (6 - from_play)
        np.testing.assert_allclose(batch.prev_actions[-1, :, 0], [0.01] * from_play + [0.02] * (6 - from_play), 1e-5)


def test_without_play_all_of_a_batch_is_experience():
    joint = sampler(None, dataset(episode(2)), play_ratio=0.5)
    assert joint.experienced == 6
    assert (joint.sample()[0].observations["observation"][..., 0] == 2).all()


def test_rewards_are_those_of_the_records_and_known_in_experience_alone():
    joint = sampler(dataset(episode(100)), dataset(episode(2), episode(3, steps=11)))
    for _ in range(5):
        batch, labels = joint.sample()
        observed = batch.observations["observation"]
        arrived = observed[..., 1] > 0
        expected = torch.where(arrived, observed.sum(-1), torch.zeros(()))[:, 3:]
        assert torch.equal(labels.rewards[:, 3:], expected)  # the reset's is zero
        assert labels.rewarded[:, 3:].all()
        assert not labels.rewarded[:, :3].any()
        assert not labels.rewards[:, :3].any()  # whatever a file says of play


def test_terminal_states_are_known_everywhere():
    play = dataset(episode(1, terminated=True), episode(2, truncated=True))
    joint = sampler(play, dataset(episode(3, steps=5, terminated=True), episode(4)))
    ends = {1: toy.STEPS, 3: 5}
    for _ in range(10):
        batch, labels = joint.sample()
        value, count = batch.observations["observation"].unbind(-1)
        ended = sum((value == who) & (count == when) for who, when in ends.items()).bool()
        assert torch.equal(labels.terminal[batch.valid], ended[batch.valid])


def test_no_clip_is_longer_than_the_shorter_source_has():
    joint = sampler(dataset(episode(1)), dataset(episode(2, steps=3), episode(3, steps=1)))
    batch, _ = joint.sample()
    assert batch.valid.shape == (4, 6)  # whole episodes of experience, the shortest of them padded
    short = batch.observations["observation"][0, :, 0] == 3
    assert batch.valid[:, ~short].all()
    assert not batch.valid[2:, short].any()


def test_the_same_generator_draws_the_same_batches():
    sources = dataset(episode(1)), dataset(episode(2))
    one, other = sampler(*sources), sampler(*sources)
    for _ in range(3):
        assert torch.equal(one.sample()[0].rows, other.sample()[0].rows)


# ---- updates ----


class Watched(EpisodeReward):
    """What a surrogate is shown."""

    def __init__(self):
        super().__init__(lambda obs, next_obs: -np.abs(next_obs).sum(-1))
        self.agent, self.expert, self.asked = [], [], []

    def update(self, expert, agent, generator):
        self.expert.append(expert)
        self.agent.append(agent)
        return {}

    def relabel(self, embeddings):
        self.asked.append(embeddings)


def imitation(surrogate="watched", *, play=True, seed=0, encoding=ENCODING, task=toy.PointMass, **changes):
    """Everything untrained but the inverse model's error, ready for updates."""
    _, recorded, demos = toy.task(task)
    config = replace(CONFIG, **changes)
    torch.manual_seed(seed)
    model = WorldModel(config.world_model, {"observation": (2,)}, encoding.size)
    play_data = TrajectoryDataset(recorded, encoding)
    model.fit_standardizers(play_data.observations)
    inverse = LatentInverseModel(model.feature_size, 2, encoding.size, discrete=encoding.discrete)
    inverse.variance.fill_(0.1)
    policy = make_latent_policy(model.feature_size, encoding.size, discrete=encoding.discrete, hidden=16)
    if surrogate == "watched":
        surrogate = Watched()
    elif surrogate == "ail":
        surrogate = LatentDiscriminatorReward(model.embedding_size, 1e-3, CPU)
    online = OnlineImitation(config, model, inverse, policy, surrogate, CPU)
    online.add(recorded[:3])
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    online.begin_updates(play_data if play else None, TrajectoryDataset(demos, None), encoding, noise, generator)
    return online


def weights(*modules):
    return [tensor.clone() for module in modules for tensor in module.state_dict().values()]


def same(before, *modules):
    return [torch.equal(one, other) for one, other in zip(before, weights(*modules), strict=True)]


def test_the_model_learns_without_the_policy_and_the_policy_without_the_model():
    online = imitation()
    (batch, labels), demos = online._joint.sample(), online._demos.sample()
    model = online.world_model, *online.task_model.heads
    others = online.policy, online.inverse_model, online.critic.value, online.critic.target
    before, rest = weights(*model), weights(*others)
    states, _ = online.task_model.update(batch, labels, online._noise)
    assert not all(same(before, *model))
    assert all(same(rest, *others))
    assert not states.deter.requires_grad
    assert not states.stoch.requires_grad
    before, rest = weights(online.policy), weights(*model, *others[1:])
    dream, _ = online._update_policy(demos, online._starts(states, batch))
    assert not all(same(before, online.policy))
    assert all(same(rest, *model, *others[1:]))
    before, rest = weights(online.critic.value), weights(*model, *others[:2])
    online.critic.update(dream)
    assert not all(same(before, online.critic.value))
    assert all(same(rest, *model, *others[:2]))
    before, rest = weights(online.inverse_model), weights(*model, online.policy)
    online._update_inverse_model(states, batch, online._embed(batch).embeddings)
    assert not all(same(before, online.inverse_model))
    assert all(same(rest, *model, online.policy))


@pytest.mark.parametrize("reward", ["watched", "ail", None])
@pytest.mark.parametrize("play", [True, False])
def test_an_update_moves_everything_it_says(reward, play):
    online = imitation(reward, play=play)
    before = {name: weights(getattr(online, name)) for name in ("world_model", "inverse_model", "policy")}
    value = weights(online.critic.value)
    metrics = [online.update() for _ in range(2)][-1]
    assert all(np.isfinite(float(number)) for number in metrics.values())
    for name, kept in before.items():
        assert not all(same(kept, getattr(online, name))), name
    assert all(same(value, online.critic.value)) == (reward is None)
    assert ("value_loss" in metrics) == ("imagined_reward" in metrics) == (reward is not None)
    assert ("discriminator_loss" in metrics) == (reward == "ail")


def test_an_update_embeds_each_sequence_once(monkeypatch):
    online = imitation("ail")
    shown = []
    embed = WorldModel.embed
    monkeypatch.setattr(
        WorldModel, "embed", lambda model, seen: shown.append(seen["observation"].shape) or embed(model, seen)
    )
    online.update()
    assert shown == [(8, 6, 2), (8, 6, 2)]  # play and experience side by side, and demonstrations


def test_no_reward_imagines_nothing(monkeypatch):
    monkeypatch.setattr("aime_gym.model_based.online.imagine", lambda *_: pytest.fail("imagined"))
    imitation(None).update()
    imitation(value_weight=0.0).update()  # nor does a return that counts for nothing
    with pytest.raises(pytest.fail.Exception, match="imagined"):
        imitation().update()


@pytest.mark.parametrize("from_play", [False, True])
def test_rollouts_start_from_experience_or_from_play_as_well(from_play):
    online = imitation(imagine_from_play=from_play, imagination_starts=None)
    batch, _ = online._joint.sample()
    batch.valid[5:, 4] = False  # one of experience that ends early
    shape = (*batch.valid.shape, 1)
    marked = torch.arange(6.0).expand(8, 6)[..., None] + torch.zeros(shape)
    starts = online._starts(type(online.world_model.rssm.initial_state(1))(marked, marked), batch)
    counts = torch.bincount(starts.deter[:, 0].long(), minlength=6).tolist()
    assert counts == [8 * from_play] * 3 + [8, 5, 8]
    assert torch.equal(starts.deter, starts.stoch)


def test_rollouts_start_from_so_many_states():
    online = imitation(imagination_starts=7)
    batch, labels = online._joint.sample()
    states, _ = online.task_model.update(batch, labels, online._noise)
    starts = online._starts(states, batch)
    assert len(starts.deter) == 7
    assert len(starts.deter.unique(dim=0)) == 7


def test_a_surrogate_sees_the_agents_own_sequences_and_the_demonstrations():
    online = imitation()
    (batch, _), demos = online._joint.sample(), online._demos.sample()
    embedded, shown_demos = online._embed(batch), online._embed(demos)
    online._update_surrogate(online.surrogate, embedded, online._joint.sample()[1], shown_demos)
    (agent,), (expert,), (asked,) = online.surrogate.agent, online.surrogate.expert, online.surrogate.asked
    assert torch.equal(agent.embeddings, embedded.embeddings[:, 3:])  # not of play
    assert torch.equal(agent.valid, batch.valid[:, 3:])
    assert torch.equal(expert.embeddings, shown_demos.embeddings)
    assert torch.equal(asked, embedded.embeddings)
    assert not any(shown.embeddings.requires_grad for shown in (agent, expert))


def test_a_reward_that_is_asked_anew_is_known_but_for_the_first_record():
    online = imitation("ail")
    (batch, labels), demos = online._joint.sample(), online._demos.sample()
    changed, _ = online._update_surrogate(online.surrogate, online._embed(batch), labels, online._embed(demos))
    assert not changed.rewarded[0].any()
    assert changed.rewarded[1:].all()  # of play too
    assert torch.equal(changed.rewards, online.surrogate.relabel(online._embed(batch).embeddings))
    assert torch.equal(changed.terminal, labels.terminal)


def test_a_reward_that_is_not_known_teaches_nothing():
    """Of records without one, and beyond the end of a trajectory, any number will do."""
    updated = []
    for filling in (0.0, 1e6):
        online = imitation()
        batch, labels = online._joint.sample()
        batch.valid[5:, ::2] = False
        rewards = torch.where(labels.rewarded & batch.valid, labels.rewards, filling)
        online.task_model.update(
            batch, labels._replace(rewards=rewards, terminal=labels.terminal | ~batch.valid), online._noise
        )
        updated.append(weights(*online.task_model.optimizer.modules))
    assert all(torch.equal(one, other) for one, other in zip(*updated, strict=True))


def test_the_tasks_reward_is_replaced():
    _, play, _ = toy.task()
    poisoned = [replace(one, rewards=np.full(len(one), np.nan, np.float32)) for one in play[:2]]
    online = imitation()
    online.add(poisoned)
    for one in online.replay.trajectories[-2:]:
        np.testing.assert_array_equal(one.rewards, -np.abs(one.observations[1:]).sum(-1))
    unpaid = imitation(None)
    unpaid.add(poisoned)
    assert unpaid.replay.trajectories[-1].rewards is None
    assert online.experienced_steps == 5 * toy.STEPS


@pytest.mark.parametrize("from_scratch", [False, True])
def test_updates_of_a_discrete_space(from_scratch):
    encoding = ActionEncoding(toy.DiscretePointMass().action_space)
    changes = dict.fromkeys(("warm_start", "action_prior", "continue_latents"), not from_scratch)
    online = imitation("ail", encoding=encoding, task=toy.DiscretePointMass, **changes)
    before = weights(online.inverse_model)
    policy = weights(online.policy)
    assert all(np.isfinite(float(number)) for number in online.update().values())
    assert all(same(before, online.inverse_model)) == from_scratch
    assert not all(same(policy, online.policy))


def test_what_learn_goes_on_with_is_all_of_it():
    one, other = imitation("ail", seed=0), imitation("ail", seed=1)
    one.update()
    other.load_state_dict(one.state_dict())
    assert len(other.replay.trajectories) == 3
    for online in (one, other):
        _, play, demos = toy.task()
        generator = torch.Generator().manual_seed(5)
        online.begin_updates(
            TrajectoryDataset(play, ENCODING), TrajectoryDataset(demos, None), ENCODING,
            lambda *shape, of=generator: torch.randn(*shape, generator=of), generator,
        )  # fmt: skip
        online.update()
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


# ---- two losses whose units have nothing to do with each other ----


def test_directions_are_followed_in_proportion_to_their_weights():
    """Against a plain version, in float64: each gradient over all parameters, of length one."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    unused = torch.nn.Linear(2, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64)

    def losses():
        return 1e5 * net(x)[:, 0].square().mean(), net(x)[:, 1].mean()

    parameters = list(net.parameters())
    expected = [torch.zeros_like(p) for p in parameters]
    for weight, loss in zip((1.0, 0.3), losses(), strict=True):
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = torch.cat([g.flatten() for g in gradients if g is not None])
        for total, gradient in zip(expected, gradients, strict=True):
            total += weight * gradient / flat.norm()
    optimizer = Optimizer([net, unused], 1e-3)
    norm = optimizer.step_on(zip((1.0, 0.3), losses(), strict=True))
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in expected]).norm())
    assert all(parameter.grad is None for parameter in unused.parameters())


@pytest.mark.parametrize("normalized", [True, False])
def test_the_units_of_the_reward_matter_unless_directions_are_balanced(normalized):
    """Pay a thousandfold: the policy's gradient is another where it follows the plain sum alone."""
    gradients = []
    for unit in (1.0, 1000.0):
        online = imitation(
            normalize_gradients=normalized, value_weight=0.5, value_warmup=0, clone_weight=0.0, entropy_weight=0.0
        )
        batch, labels = online._joint.sample()
        states, _ = online.task_model.update(batch, labels, online._noise)
        demos, starts = online._demos.sample(), online._starts(states, batch)
        with torch.no_grad():
            for head in (online.task_model.reward_head, online.critic.target.copy):
                for parameter in head.net[-1].parameters():
                    parameter.mul_(unit)
        online._update_policy(demos, starts)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in online.policy.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5) == normalized
    if normalized:  # two directions of length one, the second of half the weight
        assert 0.5 <= gradients[0].norm() <= 1.5


def test_configurations_that_make_no_sense_are_named():
    for changes, message in (
        ({"play_ratio": 1}, "^play_ratio: expected less than 1"),
        ({"play_ratio": 1.5}, "^play_ratio: expected 0 to 1"),
        ({"imagination_starts": 0}, "^imagination_starts: expected at least 1"),
        ({"imagination_starts": 2.5}, "^imagination_starts: expected a whole number"),
        ({"reward": "task"}, "^reward: expected one of viper, ail, none, or a function, got 'task'"),
        ({"round_steps": 0}, "^round_steps: expected at least 1"),
        ({"gamma": 1.1}, "^gamma: expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            OnlineConfig(**changes)


def test_the_policy_follows_the_latent_states_of_a_model_that_moves():
    """By cloning what the inverse model infers there; alone, it comes closer to those actions."""

    def error(online, demos):
        beliefs = online._beliefs
        rows = (~demos.first_rows()).nonzero().squeeze(-1)
        with torch.no_grad():
            return float(online.policy(beliefs.features[rows - 1]).regression_loss(beliefs.prev_actions[rows]))

    online = imitation(None, clone_weight=1e6)  # the evidence has no say beside it
    demos = online._demos.dataset
    before = error(online, demos)
    for _ in range(30):
        online._update_policy(online._demos.sample(), None)
    assert error(online, demos) < 0.9 * before
