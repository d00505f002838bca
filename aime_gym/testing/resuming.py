"""Contract of interrupted phases: the policy is kept, and checkpoints resume bit-identically."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.type_aliases import MaybeCallback

from aime_gym.agents.base import ImitationAgent
from aime_gym.testing import toy
from aime_gym.testing.base import ContractBase, assert_identical, parameters
from aime_gym.testing.save_load import write_other_format


def stop_at(clock: str, value: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return a callback that interrupts when a counter of the agent has reached ``value``."""

    def stop(local_values: dict[str, Any], _: object) -> None:
        agent = local_values["self"]
        if getattr(agent, clock) >= value and (clock == "num_updates" or agent.interacts):
            raise KeyboardInterrupt

    return stop


class ResumingContract(ContractBase):
    """Ctrl-C, errors, and ``checkpoint_dir``."""

    def checkpointing_agent(self, folder: Path, **changes: Any) -> ImitationAgent:
        """Return an untrained agent with data and a checkpoint after each update."""
        env, play, demos = self.task()
        return self.make(env, play=play, demonstrations=demos, checkpoint_dir=folder, checkpoint_interval=1, **changes)

    @pytest.fixture
    def uninterrupted_agent(self, trained_agent: ImitationAgent, tmp_path: Path) -> ImitationAgent:
        """Agent after both phases; without checkpoints unless it interacts, and so resets its environment for them."""
        if not self.agent_class.imitates_online:
            return trained_agent
        return self.checkpointing_agent(tmp_path / "uninterrupted").learn(0)

    def test_a_resumed_run_equals_an_uninterrupted_one(
        self, uninterrupted_agent: ImitationAgent, tmp_path: Path
    ) -> None:
        """Stop at the first update, twice in between, and at the last; each run goes on from the one before."""
        whole = getattr(uninterrupted_agent, self.callback_clock)
        for part in (0.0, 0.3, 0.6, 1.0):
            last = max(1, round(part * (whole - 1)))
            with pytest.raises(KeyboardInterrupt):
                self.checkpointing_agent(tmp_path).learn(0, callback=stop_at(self.callback_clock, last))
        seen: list[object] = []
        agent = self.checkpointing_agent(tmp_path).learn(0, callback=lambda *_: seen.append(None))
        assert len(seen) < whole  # what was done before a checkpoint is not repeated
        assert_identical(parameters(agent), parameters(uninterrupted_agent))
        assert torch.equal(agent.generator.get_state(), uninterrupted_agent.generator.get_state())
        assert agent.num_updates == uninterrupted_agent.num_updates
        assert agent.num_timesteps == uninterrupted_agent.num_timesteps
        # A finished run is not repeated.
        assert_identical(parameters(self.checkpointing_agent(tmp_path).learn(0)), parameters(uninterrupted_agent))

    def test_a_resumed_learn_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """Stop at the end of an episode and in the middle of two others; compare the data of the rounds too."""
        if not (self.agent_class.improves_online or self.agent_class.imitates_online):
            pytest.skip("takes no environment step")
        rounds = 3 * toy.STEPS

        def learn(folder: Path, callback: MaybeCallback = None) -> ImitationAgent:
            agent = self.checkpointing_agent(folder)
            if self.agent_class.imitates_online:  # by steps of its own
                agent.learn(0)
            return agent.learn(rounds, callback=callback)

        whole = learn(tmp_path / "whole")
        assert whole.num_timesteps >= rounds
        if self.agent_class.improves_online:
            assert whole.num_timesteps == rounds
        for episodes in (1, 1.5, 2.5):
            with pytest.raises(KeyboardInterrupt):
                learn(tmp_path / "cut", stop_at("num_timesteps", round(episodes * toy.STEPS)))
        agent = learn(tmp_path / "cut")
        assert_identical(parameters(agent), parameters(whole))
        assert torch.equal(agent.generator.get_state(), whole.generator.get_state())
        assert (agent.num_updates, agent.num_timesteps) == (whole.num_updates, whole.num_timesteps)
        for one in (agent, whole):  # both have kept the same data
            one.learn(toy.STEPS, reset_num_timesteps=False)
        assert_identical(parameters(agent), parameters(whole))

    def test_the_checkpoint_of_another_run_is_refused(self, tmp_path: Path) -> None:
        self.checkpointing_agent(tmp_path).learn(0)
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*another seed"):
            self.checkpointing_agent(tmp_path, seed=1).learn(0)
        play = self.task().play
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*another data"):
            self.make(checkpoint_dir=tmp_path).pretrain(play[1:], progress_bar=False)
        other = self.task(toy.DoublePointMass if self.toy_class is not toy.PixelPointMass else toy.MixedPointMass)
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*spaces"):
            self.make(other.env, checkpoint_dir=tmp_path).pretrain(other.play, progress_bar=False)

    def test_a_torn_checkpoint_is_refused(self, tmp_path: Path) -> None:
        self.checkpointing_agent(tmp_path).learn(0)
        for path in sorted(tmp_path.glob("*.zip")):
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            agent = self.checkpointing_agent(tmp_path)
            with pytest.raises(ValueError, match=rf"expected a checkpoint, got .*{path.name}"):
                agent.learn(0)
            path.write_bytes(whole)

    def test_a_checkpoint_of_another_format_is_refused(self, tmp_path: Path) -> None:
        self.checkpointing_agent(tmp_path / "old").learn(0)
        (tmp_path / "new").mkdir()
        for path in (tmp_path / "old").glob("*.zip"):
            write_other_format(path, tmp_path / "new" / path.name)
        with pytest.raises(ValueError, match=r"expected a checkpoint of format .*, got format 99"):
            self.checkpointing_agent(tmp_path / "new").learn(0)

    def test_the_last_checkpoint_is_a_file_of_the_agent(
        self, uninterrupted_agent: ImitationAgent, tmp_path: Path
    ) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.checkpointing_agent(tmp_path).learn(0, callback=stop)
        unfinished = max(tmp_path.glob("*.zip"))
        with pytest.raises(ValueError, match=r"path: expected a finished agent"):
            self.agent_class.load(unfinished)
        self.checkpointing_agent(tmp_path).learn(0)
        last = self.agent_class.load(max(tmp_path.glob("*.zip")))
        assert_identical(parameters(last), parameters(uninterrupted_agent))

    def test_ctrl_c_keeps_a_policy(self) -> None:
        env, play, demos = self.task()
        agent = self.make(env).pretrain(play, progress_bar=False)
        with pytest.warns(UserWarning, match=r"interrupted"):
            agent.imitate(demos, callback=lambda *_: signal.raise_signal(signal.SIGINT), progress_bar=False)
        assert agent.interrupted
        assert np.isfinite(toy.mean_return(env, agent, 1))
        agent.imitate(demos, progress_bar=False)
        assert not agent.interrupted

    def test_a_phase_that_failed_has_not_run(self, trained_agent: ImitationAgent) -> None:
        _, play, demos = self.task()

        def fail(*_: object) -> None:
            raise RuntimeError("error of the user")

        agent = self.make(play=play, demonstrations=demos)
        with pytest.raises(RuntimeError, match=r"error of the user"):
            agent.learn(0, callback=fail)
        assert not agent.imitated
        updates_of_play = self.make().pretrain(play, progress_bar=False).num_updates
        assert agent.pretrained == (updates_of_play == 0)
        agent.learn(0)
        assert agent.pretrained
        assert agent.imitated

        agent = self.trained()
        with pytest.raises(RuntimeError, match=r"error of the user"):
            agent.imitate(demos, callback=fail, progress_bar=False)
        assert agent.pretrained
        assert not agent.imitated
