from types import SimpleNamespace

import pytest
import torch
from stable_baselines3.common.logger import Logger

from aime_gym.training.checkpoint import snapshot
from aime_gym.training.loop import LOG_INTERVAL, RunComplete, TrainingLoop
from aime_gym.training.optimizer import Optimizer


class Recorder:
    """Stands in for a logger and a watch: what was logged, and how often the callback was asked."""

    def __init__(self, stop_after=None):
        self.entries, self.asked, self.stop_after = [], 0, stop_after

    def start(self, phase, total, updates): ...

    def log(self, metrics):
        self.entries.append(metrics)

    def update(self, updates):
        self.asked += 1
        return self.stop_after is None or updates < self.stop_after

    def end(self): ...


class Nothing:
    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


def fit(watch=None):
    counter = SimpleNamespace(num_updates=5)
    return TrainingLoop(counter, Logger(None, []), torch.Generator(), progress_bar=False, update_callbacks=watch)


def test_every_update_is_in_one_log_entry():
    values = iter(range(1000))
    seen = Recorder()
    assert fit(seen).run("phase", 2 * LOG_INTERVAL + 10, lambda: {"value": float(next(values))}, Nothing())
    means = [sum(part) / len(part) for part in (range(100), range(100, 200), range(200, 210))]
    assert [entry["value"] for entry in seen.entries] == means
    assert seen.asked == 2 * LOG_INTERVAL + 10


def test_a_finished_run_logs_what_is_left():
    calls = iter(range(7))

    def update():
        if next(calls, None) is None:
            raise RunComplete
        return {"loss": 2.0}

    seen = Recorder()
    run = fit(seen)
    assert run.run("phase", 1000, update, Nothing())
    assert (seen.entries, seen.asked, run.updates, run.counter.num_updates) == ([{"loss": 2.0}], 7, 7, 12)


def test_a_callback_ends_the_run():
    run = fit(Recorder(stop_after=3))
    assert not run.run("phase", 1000, lambda: {"loss": 1.0}, Nothing())
    assert run.updates == 3
    assert run.interrupted


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        fit().run("phase", 3, lambda: {"loss": float("nan")}, Nothing())


def test_the_gradient_is_clipped_and_the_learning_rate_ends_at_zero():
    layer = torch.nn.Linear(1, 1)
    optimizer = Optimizer([layer], 0.1, max_grad_norm=1.0, decay_updates=3)
    for _ in range(3):
        norm = optimizer.step(100 * layer(torch.ones(1, 1)).sum())
    assert norm > 100
    assert torch.cat([p.grad.flatten() for p in layer.parameters()]).norm() < 1.001
    assert [schedule.get_last_lr() for schedule in optimizer.schedules] == [[0.0]]


def test_a_step_is_adams():
    """Check against PyTorch's plain loop over parameters, in float32."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    layers[1].load_state_dict(layers[0].state_dict())
    optimizer = Optimizer([layers[0]], 1e-2)
    plain = torch.optim.Adam(layers[1].parameters(), lr=1e-2, foreach=False, fused=False)
    x = torch.randn(7, 5)
    for _ in range(20):
        optimizer.step(layers[0](x).square().mean())
        plain.zero_grad()
        layers[1](x).square().mean().backward()
        plain.step()
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class Branches(torch.nn.Module):
    """Two layers of one shape, of which either may have no gradient for a while."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 1, bias=False)
        self.second = torch.nn.Linear(3, 1, bias=False)


def test_moments_belong_to_their_parameter():
    """Check that a parameter without a gradient so far does not take over the moments of the next one."""
    one, other = Branches(), Branches()
    optimizer, resumed = Optimizer([one], 0.1), Optimizer([other], 0.1)
    for _ in range(5):
        optimizer.step(one.second(torch.ones(1, 3)).square().sum())
    resumed.load_state_dict(snapshot(optimizer.state_dict()))
    for module, stepping in ((one, optimizer), (other, resumed)):
        for _ in range(5):
            stepping.step((module.first(torch.ones(1, 3)) + module.second(torch.ones(1, 3))).square().sum())
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name]), name


def test_moments_of_other_parameters_are_refused():
    state = Optimizer([Branches()], 0.1).progress()
    optimizer = Optimizer([torch.nn.Linear(3, 1)], 0.1)
    with pytest.raises(ValueError, match=r"^moments: expected those of the optimizer's parameters, got none of 0.bias"):
        optimizer.load_progress(state)
    with pytest.raises(ValueError, match=r"^moments: expected them by the names of parameters, got a list"):
        optimizer.load_progress(state | {"moments": []})
    wide = torch.nn.Linear(4, 1)
    of_wide = Optimizer([wide], 0.1)
    of_wide.step(wide(torch.ones(1, 4)).sum())
    with pytest.raises(ValueError, match=r"^moments: expected shape \(1, 3\) for 0.weight, got \(1, 4\)"):
        optimizer.load_progress(of_wide.progress())


def test_an_optimizer_goes_on_where_another_stopped():
    def train(layer, optimizer, updates):
        for _ in range(updates):
            optimizer.step(layer(torch.ones(1, 3)).square().sum())

    layers = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)]
    optimizers = [Optimizer([layer], 0.1, decay_updates=20) for layer in layers]
    train(layers[0], optimizers[0], 7)
    optimizers[1].load_state_dict(snapshot(optimizers[0].state_dict()))
    for layer, optimizer in zip(layers, optimizers, strict=True):
        train(layer, optimizer, 7)
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(one, other)
