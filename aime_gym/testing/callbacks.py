"""Contract of SB3's callbacks in all phases, where they count updates or environment steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from aime_gym.agents.base import ImitationAgent
from aime_gym.testing import toy
from aime_gym.testing.base import PHASES, ContractBase, assert_identical, parameters


class RecordingCallback(BaseCallback):
    """Callback that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.timesteps: list[int] = []
        self.calls: list[int] = []
        self.locals_seen: list[dict[str, Any]] = []
        self.starts = 0
        self.ends = 0

    def _on_training_start(self) -> None:
        self.starts += 1

    def _on_training_end(self) -> None:
        self.ends += 1

    def _on_step(self) -> bool:
        assert self.num_timesteps == self.model.num_timesteps
        assert self.logger is self.model.logger
        self.timesteps.append(self.num_timesteps)
        self.calls.append(self.n_calls)
        self.locals_seen.append(dict(self.locals))
        return True


def _evaluation(folder: Path, make: Callable[[], gym.Env], **options: Any) -> EvalCallback:
    """Return an evaluation by sampled actions, which draws random numbers."""
    return EvalCallback(
        DummyVecEnv([lambda: Monitor(TimeLimit(make(), 3))]),
        eval_freq=1,
        n_eval_episodes=1,
        deterministic=False,
        verbose=0,
        **options,
    )


#: Callbacks that must not change training, made from a folder and from the toy environment.
PASSIVE_CALLBACKS: dict[str, Callable[[Path, Callable[[], gym.Env]], Any]] = {
    "EvalCallback": _evaluation,
    "EvalCallback with children": lambda folder, make: _evaluation(
        folder,
        make,
        best_model_save_path=str(folder),
        log_path=str(folder),
        callback_on_new_best=StopTrainingOnRewardThreshold(np.inf),
        callback_after_eval=RecordingCallback(),
    ),
    "CheckpointCallback": lambda folder, make: CheckpointCallback(1, str(folder), save_vecnormalize=True),
    "StopTrainingOnMaxEpisodes": lambda folder, make: StopTrainingOnMaxEpisodes(10**6),
    "ProgressBarCallback": lambda folder, make: ProgressBarCallback(),
    "EveryNTimesteps": lambda folder, make: EveryNTimesteps(2, RecordingCallback()),
    "LogEveryNTimesteps": lambda folder, make: LogEveryNTimesteps(1),
    "CallbackList": lambda folder, make: CallbackList(
        [RecordingCallback(), EveryNTimesteps(1, CallbackList([RecordingCallback()]))]
    ),
    "an empty list": lambda folder, make: [],
    "a function": lambda folder, make: lambda local_values, global_values: True,
}


def _steps(callback: Any) -> set[int]:
    """Return the environment steps that a callback and its children have counted."""
    if isinstance(callback, list):
        return {steps for child in callback for steps in _steps(child)}
    if not isinstance(callback, BaseCallback):
        return set()
    children = [getattr(callback, name, None) for name in ("callback", "callbacks", "callback_on_new_best")]
    return {callback.num_timesteps, getattr(callback, "last_time_trigger", 0), *_steps(children)}


def _check_that_it_changes_nothing(contract: ContractBase, callback: Any, trained_agent: ImitationAgent) -> None:
    """Assert that ``callback`` leaves all phases as they are."""
    _, play, demos = contract.task()
    agent = contract.trained(callback=callback)
    assert_identical(parameters(agent), parameters(trained_agent))
    assert torch.equal(agent.generator.get_state(), trained_agent.generator.get_state())
    # The callback can be used again in learn, and has counted no environment steps but those that were taken.
    steps = agent.num_timesteps
    online = contract.agent_class.imitates_online
    assert online or not (steps or _steps(callback) - {0})
    again = contract.make(play=play, demonstrations=demos).learn(0, callback=callback)
    assert_identical(parameters(again), parameters(trained_agent))
    assert again.num_timesteps == steps
    assert online or _steps(callback) <= {0}
    for one in callback if isinstance(callback, list) else [callback]:
        assert not isinstance(one, BaseCallback) or one.model is again


class EachCallbackContract(ContractBase):
    """Each of SB3's callbacks by itself, which one agent of each kind has to pass; all others pass all at once."""

    @pytest.mark.parametrize("case", PASSIVE_CALLBACKS)
    @pytest.mark.filterwarnings("ignore:rich is experimental")
    def test_a_callback_alone_changes_nothing(self, case: str, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        callback = PASSIVE_CALLBACKS[case](tmp_path, self.toy_class)
        _check_that_it_changes_nothing(self, callback, trained_agent)


class CallbackContract(ContractBase):
    """Argument ``callback`` of ``pretrain``, ``imitate`` and ``learn``."""

    @pytest.mark.filterwarnings("ignore:rich is experimental")
    def test_callbacks_change_nothing(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        made = [make(tmp_path / str(number), self.toy_class) for number, make in enumerate(PASSIVE_CALLBACKS.values())]
        callbacks = [callback for callback in made if isinstance(callback, BaseCallback)]
        _check_that_it_changes_nothing(self, callbacks, trained_agent)

    def test_one_call_for_each_update(self) -> None:
        agent = self.make()
        data = {"pretrain": self.task().play, "imitate": self.task().demos}
        total = 0
        for phase in PHASES:
            spy = RecordingCallback()
            getattr(agent, phase)(data[phase], callback=spy, progress_bar=False)
            updates = getattr(agent, self.callback_clock) - total
            assert spy.timesteps == list(range(total + 1, total + updates + 1))
            assert spy.calls == spy.timesteps
            assert spy.starts == spy.ends
            assert (spy.starts > 0) == (updates > 0)
            assert all(values["self"] is agent for values in spy.locals_seen)
            total = getattr(agent, self.callback_clock)
            if self.agent_class.imitates_online:
                continue
            assert spy.n_calls == spy.num_timesteps == 0
            for values in spy.locals_seen:
                assert isinstance(values["phase"], str)
                assert 1 <= values["updates"] <= values["total"]
                assert all(np.isfinite(value) for value in values["metrics"].values())

    @pytest.mark.parametrize("answer", [False, np.bool_(False), torch.tensor(False)], ids=["bool", "NumPy", "PyTorch"])
    def test_false_ends_a_phase(self, answer: Any, trained_agent: ImitationAgent) -> None:
        _, play, demos = self.task()
        calls: list[object] = []

        def stop(*_: object) -> Any:
            calls.append(None)
            return answer

        agent = self.make().pretrain(play, progress_bar=False)
        updates = getattr(trained_agent, self.callback_clock) - getattr(agent, self.callback_clock)
        before = getattr(agent, self.callback_clock)
        agent.imitate(demos, callback=stop, progress_bar=False)
        assert len(calls) == 1
        assert agent.interrupted
        assert agent.imitated
        assert getattr(agent, self.callback_clock) - before < max(updates, 2)
        assert np.isfinite(toy.mean_return(self.toy_class(), agent, 1))
        # In learn, one call for each phase that has updates or steps.
        calls.clear()
        self.make(play=play, demonstrations=demos).learn(0, callback=stop)
        assert len(calls) == 1 + (before > 0)

    def test_on_training_end_comes_whatever_happens(self) -> None:
        class Stop(RecordingCallback):
            def _on_step(self) -> bool:
                return False

        class Fail(RecordingCallback):
            def _on_step(self) -> bool:
                raise RuntimeError("error of the user")

        stop = Stop()
        fail = Fail()
        self.trained(callback=stop)
        assert stop.starts == stop.ends > 0
        with pytest.raises(RuntimeError, match=r"error of the user"):
            self.trained(callback=fail)
        assert fail.starts == fail.ends == 1

    def test_every_checkpoint_is_the_agent_of_its_moment(self, tmp_path: Path) -> None:
        seen: dict[int, dict[str, torch.Tensor]] = {}

        class Keep(BaseCallback):
            def _on_step(self) -> bool:
                seen[self.num_timesteps] = parameters(self.model)  # type: ignore[arg-type]
                return True

        agent = self.trained(callback=[Keep(), CheckpointCallback(1, str(tmp_path))])
        total = getattr(agent, self.callback_clock)
        assert sorted(seen) == list(range(1, total + 1))
        assert len(list(tmp_path.iterdir())) == total
        for count in {1, total // 2, total} - {0}:
            loaded = self.agent_class.load(tmp_path / f"rl_model_{count}_steps")
            assert getattr(loaded, self.callback_clock) == count
            assert_identical(parameters(loaded), seen[count])

    def test_evaluation_stops_at_a_reward_and_keeps_the_best(self, tmp_path: Path) -> None:
        threshold = StopTrainingOnRewardThreshold(-np.inf)
        callback = _evaluation(
            tmp_path, self.toy_class, best_model_save_path=str(tmp_path), callback_on_new_best=threshold
        )
        agent = self.make().pretrain(self.task().play, progress_bar=False)
        before = getattr(agent, self.callback_clock)
        agent.imitate(self.task().demos, callback=callback, progress_bar=False)
        assert agent.interrupted
        assert threshold.parent is callback
        assert getattr(self.agent_class.load(tmp_path / "best_model"), self.callback_clock) == before + 1

    def test_evaluations_are_filed_under_the_clock(self, tmp_path: Path) -> None:
        agent = self.trained(callback=_evaluation(tmp_path, self.toy_class, log_path=str(tmp_path)))
        with np.load(tmp_path / "evaluations.npz") as evaluations:
            assert evaluations["timesteps"].tolist() == list(range(1, getattr(agent, self.callback_clock) + 1))

    def test_what_is_no_callback_is_named(self) -> None:
        _, play, demos = self.task()
        agent = self.make(play=play, demonstrations=demos)
        before = parameters(agent)
        for verb, arguments in {"pretrain": (play,), "imitate": (demos,), "learn": (0,)}.items():
            with pytest.raises(TypeError, match=r"^callback: "):
                getattr(agent, verb)(*arguments, callback=3)
        assert agent.num_updates == 0
        assert_identical(parameters(agent), before)
