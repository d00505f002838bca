import pytest
import torch
from stable_baselines3.common.logger import Logger

from aime_gym.training.fit import LOG_INTERVAL, Finished, Fit
from aime_gym.training.optimizer import Optimizer


def fit(callback=None):
    return Fit(Logger(None, []), callback, progress_bar=False)


def test_every_update_is_in_one_report():
    seen = []
    assert fit(seen.append).run("phase", 2 * LOG_INTERVAL + 10, lambda: {"loss": 1.0})
    assert [progress.updates for progress in seen] == [LOG_INTERVAL, 2 * LOG_INTERVAL, 2 * LOG_INTERVAL + 10]


def test_a_finished_phase_reports_what_is_left():
    calls = iter(range(7))

    def update():
        if next(calls, None) is None:
            raise Finished
        return {"loss": 2.0}

    seen = []
    run = fit(seen.append)
    assert run.run("phase", 1000, update)
    assert (seen[-1].updates, seen[-1].metrics["loss"], run.updates) == (7, 2.0, 7)


def test_a_callback_ends_the_phase():
    run = fit(lambda progress: False)
    assert not run.run("phase", 1000, lambda: {"loss": 1.0})
    assert run.updates == LOG_INTERVAL
    assert run.interrupted


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        fit().run("phase", 3, lambda: {"loss": float("nan")})


def test_the_gradient_is_clipped_and_the_learning_rate_ends_at_zero():
    layer = torch.nn.Linear(1, 1)
    optimizer = Optimizer([layer], 0.1, clip=1.0, decay_updates=3)
    for _ in range(3):
        norm = optimizer.step(100 * layer(torch.ones(1, 1)).sum())
    assert norm > 100
    assert torch.cat([p.grad.flatten() for p in layer.parameters()]).norm() < 1.001
    assert optimizer.schedule.get_last_lr() == [0.0]
