from dataclasses import replace

import pytest
import torch
from torch.distributions import Gumbel, Independent, Normal, kl_divergence
from torch.distributions import OneHotCategorical as PlainCategorical

from aime_gym.models.config import PRESETS
from aime_gym.models.distributions import OneHotCategorical, OneHotLatents, TanhNormal
from aime_gym.models.images import as_floats
from aime_gym.models.policies import CategoricalPolicy, TanhGaussianPolicy
from aime_gym.models.rssm import PolicyActions, RecordedActions, State
from aime_gym.models.world_model import WorldModel, balanced_kl, with_free_nats

T, B, ACTIONS = 6, 3, 2
#: The presets; the largest one in a smaller size, with categorical latents as they are.
CONFIGS = PRESETS | {
    "ditto": replace(PRESETS["ditto"], deter=64, stoch=24, classes=6, hidden=32, decoder_hidden=32, image_depth=4)
}
SENSORS = {"angles": (3,), "height": (1,)}
CAMERA = {"camera": (10, 12, 3)}


pytestmark = pytest.mark.usefixtures("double")


def make(preset, sensors=SENSORS):
    model = WorldModel(CONFIGS[preset], sensors, ACTIONS)
    observations = {
        name: torch.randint(256, (T, B, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(T, B, *shape)
        for name, shape in sensors.items()
    }
    model.fit_standardizers({name: 3 * torch.randn(50, *sensors[name]) + 1 for name in model.vectors})
    return model, observations, torch.rand(T, B, ACTIONS) * 2 - 1, torch.randn(T, B, CONFIGS[preset].stoch)


class Straight(torch.autograd.Function):
    """Straight-through gradient: forward a sample, backward the explicit transposed Jacobian of the softmax."""

    @staticmethod
    def forward(ctx, logits, gumbel):
        ctx.save_for_backward(logits.softmax(-1))
        return torch.eye(logits.shape[-1])[(logits + gumbel).argmax(-1)]

    @staticmethod
    def backward(ctx, gradient):
        p = ctx.saved_tensors[0]
        return p * (gradient - (p * gradient).sum(-1, keepdim=True)), None


def gumbel_of(noise):
    return Gumbel(0.0, 1.0).icdf(Normal(0.0, 1.0).cdf(noise))


def plain_latents(latents):
    """PyTorch's distribution of a stochastic state."""
    if isinstance(latents, OneHotLatents):
        return PlainCategorical(logits=latents.log_probs)
    return Normal(latents.mean, latents.std)


def plain_sample(latents, noise):
    if isinstance(latents, OneHotLatents):
        return Straight.apply(latents.log_probs, gumbel_of(noise).unflatten(-1, latents.log_probs.shape[-2:])).flatten(
            1
        )
    return latents.mean + latents.std * noise


def plain_elbo(model, observations, source, noise):
    """Compute the ELBO step by step with PyTorch's distributions, from the model's parts."""
    total = 0
    state = model.rssm.initial_state(B)
    for t in range(T):
        seen = {name: (observations[name][t] - s.mean) / s.std for name, s in model.standardizers.items()}
        e = [model.encoder(torch.cat(list(seen.values()), -1))] if seen else []
        e = torch.cat([*e, *(encoder(observations[name][t]) for name, encoder in model.frame_encoders.items())], -1)
        seen |= {name: as_floats(observations[name][t], model.sensors[name]) for name in model.frame_encoders}
        h = model.rssm.transition(state, source(t, state))
        prior, posterior = model.rssm.prior(h), model.rssm.posterior(h, model.rssm.prepare(e))
        s = plain_sample(posterior, noise[t])
        state = State(h, s)
        for name, value in seen.items():
            decoded = model.decoders[name](torch.cat([h, s], -1))
            total = total + Independent(Normal(decoded.mean, decoded.std), value.ndim - 1).log_prob(value)
        total = total - kl_divergence(plain_latents(posterior), plain_latents(prior)).sum(-1)
    return total.mean()


@pytest.mark.parametrize("sensors", [SENSORS, CAMERA, SENSORS | CAMERA], ids=["vectors", "image", "both"])
@pytest.mark.parametrize("preset", CONFIGS)
def test_elbo_and_gradient_agree_with_a_plain_version(preset, sensors):
    if sensors is not SENSORS and CONFIGS[preset].image_encoder == "ha":
        sensors = sensors | {"camera": (64, 64, 3)}  # the papers' network knows no other
    model, observations, prev_actions, noise = make(preset, sensors)
    prev_actions.requires_grad_()
    evidence = model.evidence(observations, RecordedActions(prev_actions), noise, regularize=False)
    plain = plain_elbo(model, observations, lambda t, _: prev_actions[t], noise)
    torch.testing.assert_close(evidence.elbo, plain)
    wanted = [prev_actions, *model.rssm.parameters(), *model.frame_encoders.parameters(), *model.decoders.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(evidence.elbo, wanted), torch.autograd.grad(plain, wanted), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


class TrueActions(torch.nn.Module):
    """Policy that returns the recorded actions, with hardly any std."""

    def __init__(self, prev_actions):
        super().__init__()
        self.remaining = iter(prev_actions)

    def forward(self, feature):
        action = next(self.remaining)
        return TanhNormal(action.atanh(), torch.full_like(action, 1e-12))


class TrueOneHotActions(TrueActions):
    """Policy that returns the recorded one-hot actions."""

    def forward(self, feature):
        return OneHotCategorical(next(self.remaining).clamp_min(1e-12).log())


@pytest.mark.parametrize("policy", [TrueActions, TrueOneHotActions])
@pytest.mark.parametrize("preset", CONFIGS)
def test_true_actions_in_place_of_the_policy_give_the_elbo_of_phase_1(preset, policy):
    model, observations, prev_actions, noise = make(preset)
    if policy is TrueOneHotActions:
        prev_actions = torch.eye(ACTIONS)[torch.randint(ACTIONS, (T, B))]
    recorded = model.evidence(observations, RecordedActions(prev_actions), noise, regularize=False)
    source = PolicyActions(policy(prev_actions), torch.randn(T, B, ACTIONS))
    inferred = model.evidence(observations, source, noise, regularize=False)
    torch.testing.assert_close(inferred.elbo, recorded.elbo)
    torch.testing.assert_close(inferred.loss, recorded.loss)


@pytest.mark.parametrize("preset", CONFIGS)
def test_the_straight_through_gradient_agrees_with_a_plain_version(preset):
    model, observations, _, noise = make(preset)
    policy, action_noise = CategoricalPolicy(model.feature_size, ACTIONS), torch.randn(T, B, ACTIONS)
    gumbel = gumbel_of(action_noise)
    evidence = model.evidence(observations, PolicyActions(policy, action_noise), noise, regularize=False)

    def act(t, state):
        return Straight.apply(policy.logits_net(torch.cat([state.deter, state.stoch], -1)), gumbel[t])

    plain = plain_elbo(model, observations, act, noise)
    torch.testing.assert_close(evidence.elbo, plain)
    wanted = list(policy.parameters())
    ours, theirs = (torch.autograd.grad(elbo, wanted) for elbo in (evidence.elbo, plain))
    torch.testing.assert_close(ours, theirs)


def test_one_hot_actions_of_a_pass_follow_the_policy():
    model = WorldModel(CONFIGS["default"], {"observation": (2,)}, ACTIONS)
    policy, count = CategoricalPolicy(model.feature_size, ACTIONS), 20_000
    torch.nn.init.normal_(policy.logits_net[-1].bias)
    noise = torch.randn(1, count, model.config.stoch)
    with torch.no_grad():
        source = PolicyActions(policy, torch.randn(1, count, ACTIONS))
        actions = model.evidence({"observation": torch.randn(1, count, 2)}, source, noise).latents.prev_actions[0]
        p = policy(torch.zeros(model.feature_size)).log_probs.exp()  # of the state before the first record
    assert (actions.sum(-1) == 1).all()
    assert ((actions.mean(0) - p).abs() < 4 * (p * (1 - p) / count).sqrt()).all()


@pytest.mark.parametrize("policy_class", [TanhGaussianPolicy, CategoricalPolicy])
@pytest.mark.parametrize("preset", CONFIGS)
def test_every_weight_of_the_policy_gets_a_gradient(preset, policy_class):
    model, observations, _, noise = make(preset)
    model.requires_grad_(False)
    policy = policy_class(model.feature_size, ACTIONS)
    source = PolicyActions(policy, torch.randn(T, B, ACTIONS))
    evidence = model.evidence(observations, source, noise, regularize=False)
    gradients = torch.autograd.grad(evidence.loss, list(policy.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("preset", CONFIGS)
def test_every_action_gets_a_gradient(preset):
    model, observations, prev_actions, noise = make(preset)
    prev_actions.requires_grad_()
    evidence = model.evidence(observations, RecordedActions(prev_actions), noise, regularize=False)
    gradient = torch.autograd.grad(evidence.loss, prev_actions)[0]
    assert (gradient.abs().amax(dim=(1, 2)) > 0).all()


def test_finite_differences_confirm_the_gradient_through_time():
    model, observations, prev_actions, noise = make("aime")

    def loss(actions):
        return model.evidence(observations, RecordedActions(actions), noise).elbo

    assert torch.autograd.gradcheck(loss, (prev_actions.requires_grad_(),), eps=1e-6, atol=1e-4, rtol=1e-4)


def test_records_after_the_end_do_not_count():
    model, observations, prev_actions, noise = make("default")
    valid = torch.ones(T, B, dtype=torch.bool)
    valid[4:, 1] = False
    poisoned = {name: values.clone() for name, values in observations.items()}
    for values in poisoned.values():
        values[4:, 1] = 1e3
    clean = model.evidence(observations, RecordedActions(prev_actions), noise, valid=valid)
    padded = model.evidence(poisoned, RecordedActions(prev_actions), noise, valid=valid)
    torch.testing.assert_close(clean.loss, padded.loss)


@pytest.mark.parametrize("preset", ["dreamer", "ditto"])
def test_kl_balance_and_free_nats_keep_the_value(preset):
    model, observations, prev_actions, noise = make(preset)
    latents = model.evidence(observations, RecordedActions(prev_actions), noise).latents
    plain = balanced_kl(latents.posterior, latents.prior, None)
    torch.testing.assert_close(balanced_kl(latents.posterior, latents.prior, 0.8), plain)
    kl = torch.tensor([0.3, 2.0], requires_grad=True)
    limited = with_free_nats(kl, 1.0)
    torch.testing.assert_close(limited, kl)
    limited.sum().backward()
    assert kl.grad.tolist() == [0.0, 1.0]


def test_standardisation_tames_dimensions_that_hardly_move():
    model = WorldModel(CONFIGS["default"], {"observation": (2,)}, ACTIONS)
    play = torch.stack([torch.randn(500), 1e-9 * torch.randn(500)], -1)
    model.fit_standardizers({"observation": play})
    seen = model.standardize({"observation": torch.tensor([[0.0, 0.5]])})["observation"]
    assert seen.abs().max() < 10


@pytest.mark.parametrize("preset", CONFIGS)
@pytest.mark.parametrize("sampled", [True, False])
def test_observing_step_by_step_is_one_pass(preset, sampled):
    model, observations, prev_actions, noise = make(preset)
    noise = noise if sampled else torch.zeros_like(noise)
    states = model.evidence(observations, RecordedActions(prev_actions), noise).latents.states
    state = model.rssm.initial_state(B)
    for t in range(T):
        observation = {name: values[t] for name, values in observations.items()}
        state = model.observe(observation, state, prev_actions[t], noise[t] if sampled else None)
        torch.testing.assert_close(state.feature, states.feature[t])
