"""Rewards and gradients of imitation in imagination, against plain versions in float64."""

import pytest
import torch
from test_actor_critic import plain_returns, random

from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.actor_critic import imagine
from aime_gym.model_based.filtering import FilteredLatents
from aime_gym.model_based.imagined_imitation import ImaginedImitation, ImaginedImitationConfig, latent_similarity
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.policies import make_latent_policy
from aime_gym.models.rssm import State
from aime_gym.models.world_model import WorldModel
from aime_gym.testing import toy
from aime_gym.types import Trajectory

H, N, A, DETER, STOCH = 4, 5, 2, 6, 3


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def noise(seed=7):
    """The same numbers in the same order, for each call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def imitation(*, discrete=False, adversarial=False, demos=None, **options):
    torch.manual_seed(0)
    config = WorldModelConfig(deter=DETER, stoch=STOCH, hidden=5, decoder_hidden=5)
    model = WorldModel(config, {"observation": (2,)}, A).requires_grad_(False)
    policy = make_latent_policy(DETER + STOCH, A, discrete=discrete, hidden=7)
    dataset = TrajectoryDataset(demos or toy.task().demos, None)
    return ImaginedImitation(
        model,
        policy,
        dataset,
        FilteredLatents(random(len(dataset), DETER + STOCH).tanh(), random(len(dataset), A, seed=1).tanh()),
        ImaginedImitationConfig(
            **{"imagination_warmup": 0} | options, imagination_horizon=H, imagination_starts=N, entropy_weight=0.3
        ),
        noise(),
        torch.Generator().manual_seed(0),
        adversarial=adversarial,
    )


def test_the_similarity_is_one_for_the_demonstration_itself_and_less_for_all_else():
    h, other = random(9, 3, DETER), random(9, 3, DETER, seed=1)
    torch.testing.assert_close(latent_similarity(h, h), torch.ones(9, 3))
    for scaled in (0.5 * h, 2 * h, h + 0.01 * other):  # a longer vector in the same direction is no better
        assert (latent_similarity(h, scaled) < 1).all()
    torch.testing.assert_close(latent_similarity(h, other), latent_similarity(other, h))
    torch.testing.assert_close(latent_similarity(h, -h), -torch.ones(9, 3))
    one, another = h[0, 0], other[0, 0]
    torch.testing.assert_close(latent_similarity(one, another), one @ another / max(one @ one, another @ another))
    assert (latent_similarity(torch.zeros(2, DETER), h[0, :2]) == 0).all()
    assert (latent_similarity(torch.zeros(2, DETER), torch.zeros(2, DETER)) == 0).all()


def test_a_rollout_that_is_the_demonstration_has_reward_one():
    ours = imitation()
    start = State(random(N, DETER).tanh(), random(N, STOCH, seed=1))
    demonstrated = imagine(ours.world_model.rssm, ours.policy, start, H, noise()).states.deter.detach()
    ours.noise = noise()
    valid = torch.ones(H + 1, N, dtype=torch.bool)
    rollout = ours._evaluate_rollout(demonstrated, start.stoch, valid)
    torch.testing.assert_close(rollout.rewards.detach() + 1, torch.ones(H, N))
    assert ours._distance(rollout.imagined.states.deter, demonstrated, valid) == 0
    ours.noise = noise(8)
    rollout = ours._evaluate_rollout(demonstrated, start.stoch, valid)
    assert (rollout.rewards < 0).all()
    assert ours._distance(rollout.imagined.states.deter, demonstrated, valid) > 0


def plain(ours, expert, stoch, valid):
    """Weights, returns and divergences (H, N) of a rollout, as the equations have them; and its parts."""
    rssm, draw = ours.world_model.rssm, noise()
    h, s = expert[0], stoch
    rewards, values, kls, seen, actions = [], [], [], [], []
    for k in range(H):
        feature = torch.cat([h, s], -1).detach()
        choice = ours.policy(feature)
        action = choice.rsample(draw(N, A))
        seen.append(feature)
        actions.append(action)
        kls.append(choice.prior_kl())
        h = rssm.cell(rssm.input_layer(torch.cat([s, action], -1)), h)
        mean, raw = rssm.prior_nets[0](h).chunk(2, -1)
        s = mean + (2 * torch.sigmoid(raw / 2) + 0.1) * draw(N, STOCH)
        center = ours.features[:, :DETER].mean(0) if ours.config.center_latents else torch.zeros(DETER)
        e, g = expert[k + 1] - center, h - center
        reward = [(g[n] @ e[n] / max(g[n] @ g[n], e[n] @ e[n]) - 1) * valid[k + 1, n] for n in range(N)]
        rewards.append(torch.stack(reward))
        values.append(ours.critic.target(torch.cat([h, s], -1)))
    alive = torch.stack([valid[min(k + 2, H)] for k in range(H)]).double()
    alive[-1] *= ours.config.bootstrap
    discounts = ours.config.gamma * alive
    returns = plain_returns(torch.stack(rewards), discounts, torch.stack(values), ours.config.td_lambda)
    weights = torch.stack([discounts[:k].prod(0) for k in range(H)])
    return weights, returns, torch.stack(kls), torch.stack(seen), torch.stack(actions)


def drawn():
    """Expert states, starts, and a demonstration that ends after two steps."""
    valid = torch.ones(H + 1, N, dtype=torch.bool)
    valid[3:, 1] = False
    return random(H + 1, N, DETER).tanh(), random(N, STOCH, seed=1), valid


def assert_same_gradients(policy, ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    parameters = [*policy.parameters()]
    pairs = zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(expected, parameters), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("papers", [False, True])
def test_the_gradient_of_the_imagined_return_is_that_of_a_plain_version(papers):
    ours = imitation(center_latents=not papers, bootstrap=papers)
    expert, stoch, valid = drawn()
    weights, returns, kls, *_ = plain(ours, expert, stoch, valid)
    ours.noise = noise()
    rollout = ours._evaluate_rollout(expert, stoch, valid)
    assert_same_gradients(ours.policy, ours._policy_loss(rollout), -(weights * returns).mean() + 0.3 * kls.mean())


def test_reinforce_is_that_of_a_plain_version():
    ours = imitation(discrete=True)
    expert, stoch, valid = drawn()
    weights, returns, kls, seen, actions = plain(ours, expert, stoch, valid)
    advantages = (returns - ours.critic.target(seen)).detach()
    counted = torch.stack([advantages[k, n] for k in range(H) for n in range(N) if weights[k, n] > 0])
    advantages = (advantages - counted.mean()) / counted.std(correction=0)
    log_prob = (ours.policy(seen).log_probs * actions.detach()).sum(-1)
    ours.noise = noise()
    rollout = ours._evaluate_rollout(expert, stoch, valid)
    expected = -(weights * log_prob * advantages).mean() + 0.3 * kls.mean()
    assert not rollout.returns.requires_grad
    assert_same_gradients(ours.policy, ours._policy_loss(rollout), expected)


@pytest.mark.parametrize("adversarial", [False, True])
def test_what_follows_the_end_of_a_demonstration_is_worth_nothing(adversarial):
    ours = imitation(adversarial=adversarial)
    expert, stoch, valid = drawn()
    changed = expert.clone()
    changed[3:, 1] = 1 - changed[3:, 1]
    returns = []
    for one in (expert, changed):
        ours.noise = noise()
        returns.append(ours._evaluate_rollout(one, stoch, valid).returns)
    torch.testing.assert_close(*returns, rtol=0, atol=0)


def test_no_rollout_is_longer_than_the_longest_demonstration():
    short = [Trajectory(demo.observations[:3]) for demo in toy.task().demos[:2]]
    ours = imitation(demos=short)
    metrics = ours.update()
    assert ours.sampler.sequence_length == 3
    assert torch.isfinite(torch.stack([torch.as_tensor(value) for value in metrics.values()])).all()


def test_a_policy_waits_for_its_value_network():
    ours = imitation(imagination_warmup=2)
    first = [parameter.clone() for parameter in ours.policy.parameters()]
    moved = []
    for _ in range(3):
        ours.update()
        pairs = zip(first, ours.policy.parameters(), strict=True)
        moved.append(any(not torch.equal(before, after) for before, after in pairs))
    assert moved == [False, False, True]


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("adversarial", [False, True])
def test_a_state_is_all_that_an_update_changes(discrete, adversarial):
    one, other = (imitation(discrete=discrete, adversarial=adversarial) for _ in range(2))
    one.update()
    before = {name: weights.clone() for name, weights in one.world_model.state_dict().items()}
    other.load_state_dict(one.state_dict())
    for ours in (one, other):
        ours.noise = noise()
        ours.generator.manual_seed(1)
        ours.update()
    for left, right in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(left, right)
    for left, right in zip(one.critic.value.parameters(), other.critic.value.parameters(), strict=True):
        assert torch.equal(left, right)
    assert all(torch.equal(weights, before[name]) for name, weights in one.world_model.state_dict().items())


def test_the_expert_s_side_is_imagined_under_its_own_actions():
    ours = imitation(adversarial=True)
    rows = torch.arange(H + 1)[:, None].expand(H + 1, N)
    start = State(*ours.features[rows[0]].split([DETER, STOCH], -1))
    imagined = ours._imagine_expert(rows, start)
    torch.testing.assert_close(imagined[0], start.deter)
    torch.testing.assert_close(imagined[1], ours.world_model.rssm.transition(start, ours.prev_actions[rows[1]]))
    ours.prev_actions = -ours.prev_actions
    assert not torch.allclose(ours._imagine_expert(rows, start)[1], imagined[1])
