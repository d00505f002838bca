"""SB3's callbacks watch phases: of updates, which they count, or of environment steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
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
from aime_gym.testing.subject import PHASES, Subject, assert_identical, parameters


class Spy(BaseCallback):
    """Keeps what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: list[int] = []
        self.calls: list[int] = []
        self.locals_seen: list[dict[str, Any]] = []
        self.starts = self.ends = 0

    def _on_training_start(self) -> None:
        self.starts += 1

    def _on_training_end(self) -> None:
        self.ends += 1

    def _on_step(self) -> bool:
        assert self.num_timesteps == self.model.num_timesteps
        assert self.logger is self.model.logger
        self.clock.append(self.num_timesteps)
        self.calls.append(self.n_calls)
        self.locals_seen.append(dict(self.locals))
        return True


def _evaluation(folder: Path, make: Callable[[], gym.Env], **options: Any) -> EvalCallback:
    """Of sampled actions, so that watching draws random numbers."""
    return EvalCallback(
        DummyVecEnv([lambda: Monitor(make())]),
        eval_freq=1,
        n_eval_episodes=1,
        deterministic=False,
        verbose=0,
        **options,
    )


#: Callbacks that only watch: in a folder of their own, and in environments of their own.
WATCHING: dict[str, Callable[[Path, Callable[[], gym.Env]], Any]] = {
    "EvalCallback": _evaluation,
    "EvalCallback with children": lambda folder, make: _evaluation(
        folder,
        make,
        best_model_save_path=str(folder),
        log_path=str(folder),
        callback_on_new_best=StopTrainingOnRewardThreshold(np.inf),
        callback_after_eval=Spy(),
    ),
    "CheckpointCallback": lambda folder, make: CheckpointCallback(1, str(folder), save_vecnormalize=True),
    "StopTrainingOnMaxEpisodes": lambda folder, make: StopTrainingOnMaxEpisodes(10**6),
    "ProgressBarCallback": lambda folder, make: ProgressBarCallback(),
    "EveryNTimesteps": lambda folder, make: EveryNTimesteps(2, Spy()),
    "LogEveryNTimesteps": lambda folder, make: LogEveryNTimesteps(1),
    "CallbackList": lambda folder, make: CallbackList([Spy(), EveryNTimesteps(1, CallbackList([Spy()]))]),
    "a list": lambda folder, make: [Spy(), CheckpointCallback(1, str(folder))],
    "an empty list": lambda folder, make: [],
    "a function": lambda folder, make: lambda local_values, global_values: True,
    "a function that returns nothing": lambda folder, make: lambda local_values, global_values: None,
}


def _steps(callback: Any) -> set[int]:
    """What a callback and those below it have counted of environment steps."""
    if isinstance(callback, list):
        return {steps for child in callback for steps in _steps(child)}
    if not isinstance(callback, BaseCallback):
        return set()
    below = [getattr(callback, name, None) for name in ("callback", "callbacks", "callback_on_new_best")]
    return {callback.num_timesteps, getattr(callback, "last_time_trigger", 0), *_steps(below)}


class CallbackContract(Subject):
    """The argument ``callback`` of ``pretrain``, ``imitate`` and ``learn``."""

    @pytest.mark.parametrize("case", WATCHING)
    @pytest.mark.filterwarnings("ignore:rich is experimental")
    def test_watching_changes_nothing(self, case: str, learnt: ImitationAgent, tmp_path: Path) -> None:
        callback = WATCHING[case](tmp_path, self.point_mass)
        env, play, demos = self.task()
        agent = self.trained(callback=callback)
        assert_identical(parameters(agent), parameters(learnt))
        assert torch.equal(agent.generator.get_state(), learnt.generator.get_state())
        # The same object goes on in learn, and has counted no environment step until then but those that were taken.
        steps = agent.num_timesteps
        assert self.agent_class.imitates_online or not (steps or _steps(callback) - {0})
        again = self.make(env, play=play, demonstrations=demos).learn(0, callback=callback)
        assert_identical(parameters(again), parameters(learnt))
        assert again.num_timesteps == steps
        assert self.agent_class.imitates_online or _steps(callback) <= {0}
        if isinstance(callback, BaseCallback):
            assert callback.model is again

    def test_one_call_for_each_update(self) -> None:
        agent, data, total = self.make(), {"pretrain": self.task().play, "imitate": self.task().demos}, 0
        for phase in PHASES:
            spy = Spy()
            getattr(agent, phase)(data[phase], callback=spy, progress_bar=False)
            updates = getattr(agent, self.clock) - total
            assert spy.clock == list(range(total + 1, total + updates + 1))
            assert spy.calls == spy.clock
            assert spy.starts == spy.ends
            assert (spy.starts > 0) == (updates > 0)
            assert all(values["self"] is agent for values in spy.locals_seen)
            total = getattr(agent, self.clock)
            if self.agent_class.imitates_online:
                continue
            assert spy.n_calls == spy.num_timesteps == 0
            for values in spy.locals_seen:
                assert isinstance(values["phase"], str)
                assert 1 <= values["updates"] <= values["total"]
                assert all(np.isfinite(value) for value in values["metrics"].values())

    @pytest.mark.parametrize("answer", [False, np.bool_(False), torch.tensor(False)], ids=["bool", "NumPy", "PyTorch"])
    def test_false_ends_a_phase(self, answer: Any, learnt: ImitationAgent) -> None:
        _, play, demos = self.task()
        calls: list[object] = []

        def stop(*_: object) -> Any:
            calls.append(None)
            return answer

        agent = self.make().pretrain(play, progress_bar=False)
        updates = getattr(learnt, self.clock) - getattr(agent, self.clock)
        before = getattr(agent, self.clock)
        agent.imitate(demos, callback=stop, progress_bar=False)
        assert len(calls) == 1
        assert agent.interrupted
        assert agent.imitated
        assert getattr(agent, self.clock) - before < max(updates, 2)
        assert np.isfinite(toy.mean_return(self.point_mass(), agent, 1))
        # In learn, once for each phase with anything to count.
        calls.clear()
        self.make(play=play, demonstrations=demos).learn(0, callback=stop)
        assert len(calls) == 1 + (before > 0)

    def test_on_training_end_comes_whatever_happens(self) -> None:
        class Stop(Spy):
            def _on_step(self) -> bool:
                return False

        class Fail(Spy):
            def _on_step(self) -> bool:
                raise RuntimeError("of the user")

        stop, fail = Stop(), Fail()
        self.trained(callback=stop)
        assert stop.starts == stop.ends > 0
        with pytest.raises(RuntimeError, match=r"of the user"):
            self.trained(callback=fail)
        assert fail.starts == fail.ends == 1

    def test_every_checkpoint_is_the_agent_of_its_moment(self, tmp_path: Path) -> None:
        seen: dict[int, dict[str, torch.Tensor]] = {}

        class Keep(BaseCallback):
            def _on_step(self) -> bool:
                seen[self.num_timesteps] = parameters(self.model)  # type: ignore[arg-type]
                return True

        agent = self.trained(callback=[Keep(), CheckpointCallback(1, str(tmp_path))])
        total = getattr(agent, self.clock)
        assert sorted(seen) == list(range(1, total + 1))
        assert len(list(tmp_path.iterdir())) == total
        for count in {1, total // 2, total} - {0}:
            loaded = self.agent_class.load(tmp_path / f"rl_model_{count}_steps")
            assert getattr(loaded, self.clock) == count
            assert_identical(parameters(loaded), seen[count])

    def test_evaluation_stops_at_a_reward_and_keeps_the_best(self, tmp_path: Path) -> None:
        threshold = StopTrainingOnRewardThreshold(-np.inf)
        callback = _evaluation(
            tmp_path, self.point_mass, best_model_save_path=str(tmp_path), callback_on_new_best=threshold
        )
        agent = self.make().pretrain(self.task().play, progress_bar=False)
        before = getattr(agent, self.clock)
        agent.imitate(self.task().demos, callback=callback, progress_bar=False)
        assert agent.interrupted
        assert threshold.parent is callback
        assert getattr(self.agent_class.load(tmp_path / "best_model"), self.clock) == before + 1

    def test_evaluations_are_filed_under_the_clock(self, tmp_path: Path) -> None:
        agent = self.trained(callback=_evaluation(tmp_path, self.point_mass, log_path=str(tmp_path)))
        with np.load(tmp_path / "evaluations.npz") as evaluations:
            assert evaluations["timesteps"].tolist() == list(range(1, getattr(agent, self.clock) + 1))

    def test_what_is_no_callback_is_named(self) -> None:
        _, play, demos = self.task()
        agent = self.make(play=play, demonstrations=demos)
        before = parameters(agent)
        for verb, arguments in {"pretrain": (play,), "imitate": (demos,), "learn": (0,)}.items():
            with pytest.raises(TypeError, match=r"^callback: "):
                getattr(agent, verb)(*arguments, callback=3)
        assert agent.num_updates == 0
        assert_identical(parameters(agent), before)
