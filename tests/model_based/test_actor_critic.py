"""Returns, rollouts and their gradients, against plain versions in float64."""

import dataclasses

import pytest
import torch

from aime_gym.model_based.actor_critic import Critic, ImaginationConfig, imagine, lambda_returns
from aime_gym.models.config import WorldModelConfig
from aime_gym.models.heads import ScalarHead, TargetNetwork
from aime_gym.models.policies import make_latent_policy
from aime_gym.models.rssm import RSSM, State

H, N, A = 5, 3, 2


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_returns(rewards, discounts, values, td_lambda):
    """R_k = r_{k+1} + d_{k+1} [(1 - td_lambda) V_{k+1} + td_lambda R_{k+1}], one number at a time."""
    returns = torch.empty_like(rewards)
    for n in range(rewards.shape[1]):
        following = values[-1, n]
        for k in reversed(range(len(rewards))):
            following = rewards[k, n] + discounts[k, n] * ((1 - td_lambda) * values[k, n] + td_lambda * following)
            returns[k, n] = following
    return returns


@pytest.mark.parametrize("td_lambda", [0.0, 0.5, 0.95, 1.0])
def test_returns_equal_those_of_a_plain_loop(td_lambda):
    rewards, values, discounts = random(H, N), random(H, N, seed=1), random(H, N, seed=2).sigmoid()
    expected = plain_returns(rewards, discounts, values, td_lambda)
    torch.testing.assert_close(lambda_returns(rewards, discounts, values, td_lambda), expected, rtol=0, atol=1e-12)


def test_trace_zero_looks_one_step_ahead_and_trace_one_to_the_end():
    rewards, values, discounts = random(H, N), random(H, N, seed=1), random(H, N, seed=2).sigmoid()
    torch.testing.assert_close(lambda_returns(rewards, discounts, values, 0.0), rewards + discounts * values)
    weight, total = torch.ones(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    for reward, discount in zip(rewards, discounts, strict=True):
        total += weight * reward
        weight = weight * discount
    torch.testing.assert_close(lambda_returns(rewards, discounts, values, 1.0)[0], total + weight * values[-1])


def test_what_follows_a_terminal_state_is_worth_nothing():
    rewards, values, discounts = random(H, N), random(H, N, seed=1), torch.full((H, N), 0.9, dtype=torch.float64)
    discounts[2] = 0  # state 3 is terminal
    changed = rewards.clone()
    changed[3:] += 100
    before, after = (lambda_returns(one, discounts, values, 0.7) for one in (rewards, changed))
    torch.testing.assert_close(before[:3], after[:3])
    torch.testing.assert_close(before[2], rewards[2])


@pytest.fixture
def parts():
    """An RSSM, a policy, heads and a critic in float64, and a start."""
    torch.manual_seed(0)
    config = WorldModelConfig(deter=6, stoch=3, hidden=5, decoder_hidden=5)
    rssm = RSSM(config, embedding=4, actions=A).double().requires_grad_(False)
    policy = make_latent_policy(9, A, discrete=False, hidden=7).double()
    reward, terminal = (ScalarHead(9, 5).double().requires_grad_(False) for _ in range(2))
    critic = Critic(9, ImaginationConfig(imagination_horizon=H), torch.device("cpu"))
    critic.value.double()
    critic.target.double()
    return rssm, policy, reward, terminal, critic, State(random(N, 6), random(N, 3, seed=1))


def noise():
    """The same numbers in the same order, for each call."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)


def dream_of(parts):
    rssm, policy, reward, terminal, critic, start = parts
    imagined = imagine(rssm, policy, start, H, noise())
    reached = imagined.features[1:]
    return critic.evaluate(imagined, reward(reached), 1 - terminal(reached).sigmoid())


def test_a_rollout_and_its_loss_equal_a_plain_version(parts):
    rssm, policy, reward, terminal, critic, (h, s) = parts
    draw, rewards, discounts, values, kls = noise(), [], [], [], []
    for _ in range(H):
        choice = policy(torch.cat([h, s], -1).detach())
        before = torch.distributions.Normal(choice.mean, choice.std)
        broad = torch.distributions.Normal(torch.zeros_like(choice.mean), torch.full_like(choice.std, 0.8742))
        kls.append(torch.distributions.kl_divergence(before, broad).sum(-1))
        action = torch.tanh(choice.mean + choice.std * draw(N, A))
        h = rssm.cell(rssm.input_layer(torch.cat([s, action], -1)), h)
        mean, raw = rssm.prior_nets[0](h).chunk(2, -1)
        s = mean + (2 * torch.sigmoid(raw / 2) + 0.1) * draw(N, 3)
        feature = torch.cat([h, s], -1)
        rewards.append(reward(feature))
        discounts.append(critic.config.gamma * (1 - terminal(feature).sigmoid()))
        values.append(critic.target(feature))
    returns = plain_returns(torch.stack(rewards), torch.stack(discounts), torch.stack(values), critic.config.td_lambda)
    weight, total = torch.ones(N, dtype=torch.float64), 0.0
    for k in range(H):
        total = total + (weight * returns[k]).sum()
        weight = weight * discounts[k].detach()
    expected = -total / (H * N) + 0.3 * torch.stack(kls).mean()
    dream = dream_of(parts)
    loss = dream.policy_loss(0.3)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for plain, ours in zip(
        torch.autograd.grad(expected, [*policy.parameters()]),
        torch.autograd.grad(loss, [*policy.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences(parts):
    """Of the first action's part: later ones see a state without its gradient, which differences do not know."""
    rssm, policy, reward, terminal, critic, start = parts
    direction = [random(*p.shape, seed=index) for index, p in enumerate(policy.parameters())]

    def loss():
        imagined = imagine(rssm, policy, start, 1, noise())
        reached = imagined.features[1:]
        return critic.evaluate(imagined, reward(reached), 1 - terminal(reached).sigmoid()).policy_loss(0.3)

    slope = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(loss(), [*policy.parameters()]), direction, strict=True)
    )
    step, ends = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(policy.parameters(), direction, strict=True):
                p.add_(sign * step * d)
            ends.append(loss())
            for p, d in zip(policy.parameters(), direction, strict=True):
                p.sub_(sign * step * d)
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_an_actor_and_critic_learn_to_go_where_the_reward_is(parts):
    """The reward is the first latent number: the policy raises it, and the value network tells by how much."""
    rssm, policy, _, _, critic, start = parts
    rssm.prior_nets[0][-1].weight.mul_(5)  # where states answer to actions
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    critic.optimizer.optimizers[0].param_groups[0]["lr"] = 1e-2

    def dream(draws):
        imagined = imagine(
            rssm, policy, start, H, lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=draws)
        )
        return critic.evaluate(imagined, imagined.states.stoch[1:, :, 0], torch.ones(H, N, dtype=torch.float64))

    def reached():
        draws = torch.Generator().manual_seed(1)  # the same luck before and after
        return torch.stack([dream(draws).imagined.states.stoch[1:, :, 0].mean() for _ in range(50)]).mean()

    first, draws = reached(), torch.Generator().manual_seed(0)
    for _ in range(150):
        one = dream(draws)
        optimizer.zero_grad()
        one.policy_loss(1e-4).backward()
        optimizer.step()
        critic.update(one)
    assert reached() > first + 0.05
    one = dream(draws)
    error = (critic.value(one.imagined.features[:-1]) - one.returns).detach().square().mean()
    assert error < one.returns.detach().square().mean()


def test_the_slow_copy_keeps_its_share():
    torch.manual_seed(0)
    fast, copy = ScalarHead(2, 3), ScalarHead(2, 3)
    slow = TargetNetwork(fast, copy, decay=0.95)
    first = [p.clone() for p in slow.parameters()]
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(1)
    slow.polyak_update(fast)
    for before, after in zip(first, slow.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.05)
    assert not any(p.requires_grad for p in slow.parameters())


def test_the_state_of_a_critic_is_all_of_it(parts):
    critic = parts[4]
    critic.update(dream_of(parts))
    other = Critic(9, dataclasses.replace(critic.config), torch.device("cpu"))
    other.value.double()
    other.target.double()
    other.load_state_dict(critic.state_dict())
    dream = dream_of(parts)  # by the one's slow copy, which then moves
    for one in (critic, other):
        one.update(dream)
    for module in ("value", "target"):
        for left, right in zip(getattr(critic, module).parameters(), getattr(other, module).parameters(), strict=True):
            assert torch.equal(left, right)
