"""IIDM: a policy whose actions explain the demonstrations by a frozen forward model of observations."""

import numpy as np
import pytest
import small
import torch

from aime_gym.agents import IIDMAgent
from aime_gym.agents.iidm import mean_over, policy_actions, prediction_errors
from aime_gym.data import TrajectoryDataset
from aime_gym.models.forward_model import ForwardModel
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical


def pretrained(task=toy.PointMass, **changes):
    _, play, _ = toy.task(task)
    return IIDMAgent(task(), seed=0, **small.TINY["iidm"] | changes).pretrain(play, progress_bar=False)


@pytest.mark.parametrize("robust", [True, False])
def test_the_policy_has_the_gradient_of_the_frozen_model(robust):
    """Check it against finite differences, along random directions."""
    agent = pretrained()
    dataset = TrajectoryDataset(toy.task().demos, None)
    dataset.observations = {name: values.double() for name, values in dataset.observations.items()}
    model, policy = agent.forward_model.double(), agent.policy.double()
    policy.copy_encoding(model)
    model.set_variance(torch.full_like(model.variance, 100.0))  # so that it is the scale: errors are smaller
    cost = model.negative_log_likelihood if robust else model.mean_square
    rows = (~dataset.first_rows()).nonzero().squeeze(-1)[:40]

    def loss():
        features = policy.encode(dataset.windows(rows - 1, policy.frames))
        return cost(prediction_errors(model, dataset, rows, policy_actions(policy, features, torch.randn)))

    gradients = torch.autograd.grad(loss(), list(policy.parameters()))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in policy.parameters()]
        expected = sum((d * g).sum() for d, g in zip(directions, gradients, strict=True))
        values = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):  # to one side, and from there to the other
                for parameter, direction in zip(policy.parameters(), directions, strict=True):
                    parameter.add_(direction, alpha=step)
                values.append(loss())
            for parameter, direction in zip(policy.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=1e-6)
        assert float((values[0] - values[1]) / 2e-6) == pytest.approx(float(expected), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("preset", "task"),
    [
        ("default", toy.PointMass),
        ("default", toy.DiscretePointMass),
        ("default", toy.MixedPointMass),
        ("paper", toy.PointMass),
        ("paper", toy.DiscretePointMass),
    ],
)
def test_the_model_stays_as_it_is_and_the_policy_explains_better(preset, task):
    few = {"model_updates": 200, "policy_updates": 200, "hidden": 32, "layers": 2}
    if preset == "paper":
        few = {"min_epochs": 0, "max_epochs": 10, "min_updates": 20}
    _, play, demos = toy.task(task)
    agent = IIDMAgent(task(), seed=0, preset=preset, stack=3, **few | {"batch_size": 50})
    agent.pretrain(play, progress_bar=False)
    model = agent.forward_model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost = model.negative_log_likelihood if agent.config.robust else model.mean_square
    dataset = TrajectoryDataset(demos, None)
    rows = (~dataset.first_rows()).nonzero().squeeze(-1)

    def explained():
        def of(piece):
            features = agent.policy.encode(dataset.windows(piece - 1, 3))
            return cost(prediction_errors(model, dataset, piece, policy_actions(agent.policy, features, torch.zeros)))

        return float(mean_over(rows, of))

    agent.policy.copy_encoding(model)
    untrained = explained()
    agent.imitate(demos, progress_bar=False)
    assert explained() < untrained
    assert_identical(dict(model.state_dict()), before)


@pytest.mark.parametrize("predict_changes", [True, False])
def test_errors_are_those_of_the_next_observation_in_its_units(predict_changes):
    sensors = {"camera": (16, 16, 3), "position": (2,), "touch": (1,)}
    model = ForwardModel(
        sensors, 2, 3, predict_changes=predict_changes, hidden=8, layers=1, layer_norm=True
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    data = {name: torch.rand(5, 3, *shape, generator=generator) for name, shape in sensors.items()}
    vectors = torch.cat([data["position"], data["touch"]], -1)
    model.fit_standardizer({name: values.flatten(0, 1) for name, values in data.items()})
    standardized = (vectors - model.standardizer.mean) / model.standardizer.std
    changes = standardized[:, 1:] - standardized[:, :-1]
    model.fit_changes(changes.flatten(0, 1))
    for parameter in [*model.head.parameters(), *model.decoders.parameters()]:
        torch.nn.init.zeros_(parameter)  # so that it predicts the mean, and grey
    stack = {name: values[:, :2] for name, values in data.items()}
    errors = model.errors(model.encode(stack), torch.zeros(5, 3), {name: values[:, 2] for name, values in data.items()})
    expected = standardized[:, 2]
    if predict_changes:
        expected = (changes[:, 1] - model.changes.mean) / model.changes.std
    torch.testing.assert_close(-errors[:, :3], expected)
    torch.testing.assert_close(-errors[:, 3:], (data["camera"][:, 2] - 0.5).flatten(1))
    parts = [errors[:, :2], errors[:, 2:3], errors[:, 3:]]
    torch.testing.assert_close(model.mean_square(errors), sum(part.square().mean() for part in parts))


def gradients(variance, errors):
    model = ForwardModel({"o": (2,)}, 1, 1, predict_changes=True, hidden=8, layers=1, layer_norm=True)
    model.set_variance(torch.tensor(variance))
    errors.requires_grad_(True)
    return [torch.autograd.grad(cost(errors), errors)[0] for cost in (model.mean_square, model.negative_log_likelihood)]


def test_a_few_large_errors_do_not_rule_the_likelihood():
    errors = torch.full((100, 2), 0.01)
    errors[0] = 10.0
    squared, robust = gradients([1e-4, 1e-4], errors)
    assert (squared[0] > squared[1:].sum(0)).all()
    assert (robust[0] < robust[1:].sum(0)).all()


def test_a_number_counts_by_how_well_the_model_knows_it():
    errors = torch.full((100, 2), 0.01)
    _, robust = gradients([1e-4, 1e-2], errors)
    assert (robust[:, 0] > 50 * robust[:, 1]).all()


def test_the_variance_is_the_error_on_held_out_play():
    agent = pretrained(model_updates=50)
    model, (_, play, _) = agent.forward_model, toy.task()
    dataset = TrajectoryDataset(play, agent.action_encoding)
    rows = (~dataset.first_rows()).nonzero().squeeze(-1)
    with torch.no_grad():
        squares = prediction_errors(model, dataset, rows, dataset.prev_actions[rows]).square()
    of_episodes = squares.view(len(play), toy.STEPS, -1).mean(1)
    assert any(torch.allclose(model.variance, of_episode) for of_episode in of_episodes)  # one of twelve is held out


def test_actions_are_inferred_by_the_policy():
    agent = pretrained()
    _, _, demos = toy.task()
    with pytest.raises(ValueError, match=r"^infer_actions: IIDMAgent infers actions by its policy; call imitate first"):
        agent.infer_actions(demos)
    inferred = agent.imitate(demos, progress_bar=False).infer_actions(demos)
    action, _ = agent.predict(demos[0].observations[0], deterministic=True)
    np.testing.assert_allclose(inferred[0].actions[0], action, rtol=1e-5)


@pytest.mark.parametrize("task", [toy.PointMass, toy.DiscretePointMass])
def test_the_papers_form_learns_the_toy_task(task):
    env, play, demos = toy.task(task, play=60, demos=10)
    agent = IIDMAgent(env, preset="paper", seed=0, stack=3, min_epochs=5, max_epochs=15, min_updates=500)
    agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    assert toy.score(env, agent) > 0.4


def test_the_policy_starts_from_the_encoder_of_the_model(monkeypatch):
    few = {"min_epochs": 0, "max_epochs": 1, "min_updates": 1}
    _, play, demos = toy.task(toy.PixelPointMass)
    agent = IIDMAgent(toy.PixelPointMass(), seed=0, preset="paper", **few).pretrain(play, progress_bar=False)
    encoders = {}

    def watched(agent, name, network, *arguments, **options):
        encoders.update({name: value.clone() for name, value in network.encoders.state_dict().items()})
        return fit(agent, name, network, *arguments, **options)

    fit = IIDMAgent._fit
    monkeypatch.setattr(IIDMAgent, "_fit", watched)
    agent.imitate(demos, progress_bar=False)
    assert_identical(encoders, dict(agent.forward_model.encoders.state_dict()))
    assert any(not torch.equal(value, encoders[name]) for name, value in agent.policy.encoders.state_dict().items())


@pytest.mark.parametrize("options", [{"model_updates": 0}, {"policy_updates": -1}, {"hidden": 0}, {"robust": 1}])
def test_options_are_checked(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        IIDMAgent(toy.PointMass(), **options)
