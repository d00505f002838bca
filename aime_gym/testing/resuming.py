"""A phase that is cut short: what was learnt is kept, or goes on where it stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aime_gym.agents.base import ImitationAgent
from aime_gym.testing import toy
from aime_gym.testing.files import of_another_format
from aime_gym.testing.subject import Subject, assert_identical, parameters


class ResumingContract(Subject):
    """Ctrl-C, errors, and ``checkpoint_dir``."""

    @pytest.fixture
    def keeps_checkpoints(self, tmp_path: Path) -> None:
        """Only an agent that interacts may do without, and says so before any work."""
        if self.agent_class.imitates_online:
            try:
                self.make(checkpoint_dir=tmp_path)
            except NotImplementedError as error:
                assert str(error).startswith("checkpoint_dir: ")  # noqa: PT017
                pytest.skip(str(error))

    def script(self, folder: Path, **changes: Any) -> ImitationAgent:
        """The agent of a training script that keeps checkpoints."""
        env, play, demos = self.task()
        return self.make(env, play=play, demonstrations=demos, checkpoint_dir=folder, checkpoint_interval=1, **changes)

    @pytest.mark.usefixtures("keeps_checkpoints")
    @pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 1.0])
    def test_a_resumed_run_equals_an_uninterrupted_one(
        self, part: float, learnt: ImitationAgent, tmp_path: Path
    ) -> None:
        last = max(1, round(part * (learnt.num_updates - 1)))
        seen: list[object] = []

        def stop(*_: object) -> None:
            seen.append(None)
            if len(seen) == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.script(tmp_path).learn(0, callback=stop)
        assert len(seen) == last
        agent = self.script(tmp_path).learn(0)
        assert_identical(parameters(agent), parameters(learnt))
        assert torch.equal(agent.generator.get_state(), learnt.generator.get_state())
        assert agent.num_updates == learnt.num_updates
        # Once more changes nothing.
        assert_identical(parameters(self.script(tmp_path).learn(0)), parameters(learnt))

    @pytest.mark.usefixtures("keeps_checkpoints")
    @pytest.mark.parametrize("last", [1, 1.5, 2.5])
    def test_a_resumed_learn_equals_an_uninterrupted_one(self, last: float, tmp_path: Path) -> None:
        """All of its rounds' data included.

        :param last: round in which Ctrl-C comes.
        """
        if not self.agent_class.improves_online:
            pytest.skip("takes no environment step")
        rounds = 3 * toy.STEPS
        whole = self.script(tmp_path / "whole").learn(rounds)
        assert whole.num_timesteps == rounds
        ticks: list[object] = []

        def stop(local_values: dict[str, Any], _: object) -> None:
            ticks.extend([None] * local_values["self"].interacts)
            if len(ticks) == round(last * toy.STEPS):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.script(tmp_path / "cut").learn(rounds, callback=stop)
        agent = self.script(tmp_path / "cut").learn(rounds)
        assert_identical(parameters(agent), parameters(whole))
        assert torch.equal(agent.generator.get_state(), whole.generator.get_state())
        assert (agent.num_updates, agent.num_timesteps) == (whole.num_updates, whole.num_timesteps)
        for one in (agent, whole):  # with the same data
            one.learn(toy.STEPS, reset_num_timesteps=False)
        assert_identical(parameters(agent), parameters(whole))

    @pytest.mark.usefixtures("keeps_checkpoints")
    def test_the_checkpoint_of_another_run_is_refused(self, tmp_path: Path) -> None:
        self.script(tmp_path).learn(0)
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*another seed"):
            self.script(tmp_path, seed=1).learn(0)
        play = self.task().play
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*another data"):
            self.make(checkpoint_dir=tmp_path).pretrain(play[1:], progress_bar=False)
        double = self.task(toy.DoublePointMass)
        with pytest.raises(ValueError, match=r"checkpoint_dir: .*spaces"):
            self.make(double.env, checkpoint_dir=tmp_path).pretrain(double.play, progress_bar=False)

    @pytest.mark.usefixtures("keeps_checkpoints")
    def test_a_torn_checkpoint_is_refused(self, tmp_path: Path) -> None:
        self.script(tmp_path).learn(0)
        for path in sorted(tmp_path.glob("*.zip")):
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            agent = self.script(tmp_path)
            with pytest.raises(ValueError, match=rf"expected a checkpoint, got .*{path.name}"):
                agent.learn(0)
            path.write_bytes(whole)

    @pytest.mark.usefixtures("keeps_checkpoints")
    def test_a_checkpoint_of_another_format_is_refused(self, tmp_path: Path) -> None:
        self.script(tmp_path / "old").learn(0)
        (tmp_path / "new").mkdir()
        for path in (tmp_path / "old").glob("*.zip"):
            of_another_format(path, tmp_path / "new" / path.name)
        with pytest.raises(ValueError, match=r"expected a checkpoint of format .*, got format 99"):
            self.script(tmp_path / "new").learn(0)

    @pytest.mark.usefixtures("keeps_checkpoints")
    def test_the_last_checkpoint_is_a_file_of_the_agent(self, learnt: ImitationAgent, tmp_path: Path) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.script(tmp_path).learn(0, callback=stop)
        unfinished = max(tmp_path.glob("*.zip"))
        with pytest.raises(ValueError, match=r"path: expected a finished agent"):
            self.agent_class.load(unfinished)
        self.script(tmp_path).learn(0)
        assert_identical(parameters(self.agent_class.load(max(tmp_path.glob("*.zip")))), parameters(learnt))

    def test_ctrl_c_keeps_a_policy(self) -> None:
        env, play, demos = self.task()
        agent = self.make(env).pretrain(play, progress_bar=False)
        with pytest.warns(UserWarning, match=r"interrupted"):
            agent.imitate(demos, callback=lambda *_: signal.raise_signal(signal.SIGINT), progress_bar=False)
        assert agent.interrupted
        assert np.isfinite(toy.mean_return(env, agent, 1))
        agent.imitate(demos, progress_bar=False)
        assert not agent.interrupted

    def test_a_phase_that_failed_has_not_run(self, learnt: ImitationAgent) -> None:
        _, play, demos = self.task()

        def fail(*_: object) -> None:
            raise RuntimeError("of the user")

        agent = self.make(play=play, demonstrations=demos)
        with pytest.raises(RuntimeError, match=r"of the user"):
            agent.learn(0, callback=fail)
        assert not agent.imitated
        updates_of_play = self.make().pretrain(play, progress_bar=False).num_updates
        assert agent.pretrained == (updates_of_play == 0)
        agent.learn(0)
        assert agent.pretrained
        assert agent.imitated

        agent = self.trained()
        with pytest.raises(RuntimeError, match=r"of the user"):
            agent.imitate(demos, callback=fail, progress_bar=False)
        assert agent.pretrained
        assert not agent.imitated
