"""Contract of ``save``, ``load``, ``get_parameters`` and ``set_parameters``, malicious files included."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

from aime_gym.agents.base import ImitationAgent
from aime_gym.agents.registry import get_agent_class, load_agent, register_agent
from aime_gym.serialization import read_archive, write_archive
from aime_gym.testing import toy
from aime_gym.testing.base import ContractBase, assert_identical, parameters
from aime_gym.types import Array


def rollout(agent: ImitationAgent, batches: Array) -> Array:
    """Return actions for batches (T, B, ...), deterministic and sampled ones in turns."""
    state = None
    actions = []
    for batch in batches:
        for deterministic in (True, False):
            action, state = agent.predict(batch, state, deterministic=deterministic)
            actions.append(action)
    return np.stack(actions)


def _load_and_act(name: str, agent_class: type[ImitationAgent], batches: Array, paths: list[Path]) -> None:
    """Load agents in a process that has made none, and write what they do beside their files."""
    register_agent(name, agent_class)
    for path in paths:
        agent = load_agent(path, device="cpu")
        assert agent.seed == 0
        np.save(path.with_suffix(".npy"), rollout(agent, batches))


def write_other_format(source: Path, target: Path) -> None:
    """Copy a file, marked with the format of a later version."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as archive:
        for name in whole.namelist():
            document = json.loads(whole.read(name)) | {"format": 99} if name.endswith(".json") else None
            archive.writestr(name, json.dumps(document) if document else whole.read(name))


def pickle_payload(witness: Path) -> bytes:
    """Return a pickle that creates ``witness`` when it is loaded, by hand, since the package must not use pickle."""
    return f"cbuiltins\nopen\n(V{witness}\nVw\ntR.".encode()


def _planted_beside(agent: Path, pickle: bytes, target: Path) -> None:
    with zipfile.ZipFile(agent) as whole, zipfile.ZipFile(target, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
        for name in ("data.pkl", "archive/data.pkl", "policy.pth", "data"):
            archive.writestr(name, pickle)


def _planted_as(member: str) -> Callable[[Path, bytes, Path], None]:
    def plant(agent: Path, pickle: bytes, target: Path) -> None:
        with zipfile.ZipFile(agent) as whole, zipfile.ZipFile(target, "w") as archive:
            for name in whole.namelist():
                archive.writestr(name, pickle if name == member else whole.read(name))

    return plant


def _planted_in_sb3(agent: Path, pickle: bytes, target: Path) -> None:
    buffer = io.BytesIO()
    PPO("MlpPolicy", toy.PointMass(), n_steps=8, batch_size=8, device="cpu").save(buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(target, "w") as archive:
        for name in whole.namelist():
            if name != "data":
                archive.writestr(name, pickle if name.endswith(".pth") else whole.read(name))
        data = json.loads(whole.read("data"))
        for value in data.values():  # where SB3 keeps its pickles
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = base64.b64encode(pickle).decode()
        archive.writestr("data", json.dumps(data))


def _planted_alone(agent: Path, pickle: bytes, target: Path) -> None:
    target.write_bytes(pickle)


#: Ways to plant a pickle in a file, and whether the file without it is an agent's, which may be loaded.
PLANTED_PICKLES: dict[str, tuple[Callable[[Path, bytes, Path], None], bool]] = {
    "beside an agent": (_planted_beside, True),
    "as the document": (_planted_as("document.json"), False),
    "as the tensors": (_planted_as("tensors.safetensors"), False),
    "in a file of SB3": (_planted_in_sb3, False),
    "alone": (_planted_alone, False),
}


class SaveLoadContract(ContractBase):
    """Files of agents: equal after loading; anything else is refused."""

    def test_a_new_process_acts_the_same(self, tmp_path: Path) -> None:
        agent = self.make(self.task().env)
        phases: dict[str, Callable[[], object]] = {
            "new": lambda: None,
            "pretrained": lambda: agent.pretrain(self.task().play, progress_bar=False),
            "imitated": lambda: agent.imitate(self.task().demos, progress_bar=False),
        }
        expected = {}
        for phase, run in phases.items():
            run()
            agent.save(tmp_path / phase)
            expected[phase] = rollout(agent, self.observations())
        arguments = (self.agent, self.agent_class, self.observations(), [tmp_path / phase for phase in phases])
        process = multiprocessing.get_context("forkserver").Process(target=_load_and_act, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == 0
        for phase, actions in expected.items():
            np.testing.assert_array_equal(np.load(tmp_path / f"{phase}.npy"), actions, err_msg=phase)

    @pytest.mark.filterwarnings("error")
    def test_targets_of_save(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        made: dict[str | Path, Path] = {
            str(tmp_path / "text"): tmp_path / "text.zip",
            tmp_path / "path": tmp_path / "path.zip",
            tmp_path / "suffix.zip": tmp_path / "suffix.zip",
            tmp_path / "missing" / "folders" / "agent": tmp_path / "missing" / "folders" / "agent.zip",
            tmp_path / "run.0": tmp_path / "run.0",
        }
        for target, path in made.items():
            trained_agent.save(target)
            assert path.is_file()
            assert_identical(parameters(self.agent_class.load(target)), parameters(trained_agent))
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(made.values())
        buffer = io.BytesIO()
        trained_agent.save(buffer)
        for _ in range(2):
            assert_identical(parameters(self.agent_class.load(buffer)), parameters(trained_agent))
        with tempfile.TemporaryFile() as file:
            trained_agent.save(file)
            file.seek(0)
            assert_identical(parameters(load_agent(file)), parameters(trained_agent))

    def test_a_loaded_agent_goes_on_as_the_saved_one(self, tmp_path: Path) -> None:
        env, _, demos = self.task()
        agent = self.trained()
        agent.save(tmp_path / "agent")
        loaded = self.agent_class.load(tmp_path / "agent", env=env)
        for attribute in ("config", "seed", "pretrained", "imitated", "num_updates", "num_timesteps", "play_timesteps"):
            assert getattr(loaded, attribute) == getattr(agent, attribute), attribute
        assert loaded.observation_space == agent.observation_space
        assert loaded.action_space == agent.action_space
        for one in (agent, loaded):
            one.imitate(demos, progress_bar=False)
        assert_identical(parameters(loaded), parameters(agent))

    def test_load_takes_an_environment_and_a_seed(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        trained_agent.save(tmp_path / "agent")
        first, second = (self.agent_class.load(tmp_path / "agent", env=self.toy_class(), seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.get_env().reset(), second.get_env().reset())  # type: ignore[union-attr]
        assert first.seed == 3
        np.testing.assert_array_equal(rollout(first, self.observations()), rollout(second, self.observations()))
        with pytest.raises(ValueError, match=r"env: expected the spaces"):
            self.agent_class.load(tmp_path / "agent", env=gym.make(self.other_id))
        with pytest.raises(ValueError, match=r"^policy_kwargs: "):
            self.agent_class.load(tmp_path / "agent", policy_kwargs={"hidden": 3})
        with pytest.raises(ValueError, match=r"learning_rat_: unknown hyper-parameter"):
            self.agent_class.load(tmp_path / "agent", learning_rat_=3)

    # get_parameters, set_parameters

    def test_parameters_are_all_that_acts(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        trained_agent.save(tmp_path / "agent")
        for given in (trained_agent.get_parameters(), tmp_path / "agent", str(tmp_path / "agent.zip")):
            other = self.make(seed=9)
            other.set_parameters(given)
            assert_identical(parameters(other), parameters(trained_agent))
            other.acting_generator.set_state(trained_agent.acting_generator.get_state())
            np.testing.assert_array_equal(
                rollout(other, self.observations()), rollout(trained_agent, self.observations())
            )

    def test_wrong_parameters_are_named(self, trained_agent: ImitationAgent) -> None:
        whole = trained_agent.get_parameters()
        with pytest.raises(ValueError, match=r"module_of_others"):
            self.make().set_parameters(whole | {"module_of_others": {}})
        with pytest.raises(ValueError, match=r"module_of_others"):
            self.make().set_parameters({"module_of_others": {}}, exact_match=False)
        agent = self.make()
        before = parameters(agent)
        with pytest.raises(FileNotFoundError):
            agent.set_parameters("nowhere")
        agent.set_parameters({}, exact_match=False)
        assert_identical(parameters(agent), before)
        for name, state in whole.items():
            others = {other: tensors for other, tensors in whole.items() if other != name}
            with pytest.raises(ValueError, match=name):
                agent.set_parameters(others)
            if state:
                first = next(iter(state))
                with pytest.raises((ValueError, RuntimeError), match=first):
                    agent.set_parameters(others | {name: {key: state[key] for key in state if key != first}})

    # Files of others

    def test_files_of_others_are_refused(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        trained_agent.save(tmp_path / "agent")
        other = get_agent_class("bc" if self.agent != "bc" else "bco")
        for refuse in (other.load, other("MlpPolicy", toy.PointMass()).set_parameters):
            with pytest.raises(ValueError, match=rf"expected a file of {other.__name__}"):
                refuse(tmp_path / "agent")
        document = read_archive(tmp_path / "agent")
        write_archive(tmp_path / "stranger", document | {"class": "Stranger"})
        for load in (self.agent_class.load, load_agent):
            with pytest.raises(ValueError, match=r"path: expected a file of .*got one of Stranger"):
                load(tmp_path / "stranger")
            with pytest.raises(FileNotFoundError, match=r"nothing"):
                load(tmp_path / "nothing")

    def test_damaged_files_are_refused(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        trained_agent.save(tmp_path / "agent")
        content = (tmp_path / "agent.zip").read_bytes()
        damages = {
            "torn": content[: len(content) // 2],
            "text": b"not an archive",
            "empty": b"",
            "flipped": content.replace(b'"pretrained"', b'"otherwise.."'),
        }
        for name, damaged in damages.items():
            (tmp_path / name).with_suffix(".zip").write_bytes(damaged)
        document = read_archive(tmp_path / "agent")
        for part in ("attributes", "parameters", "generators", "config", "observation_space"):
            write_archive(tmp_path / f"without-{part}", {k: v for k, v in document.items() if k != part})
            damages[f"without-{part}"] = b""
        for module, state in document["parameters"].items():
            write_archive(
                tmp_path / f"half-{module}", document | {"parameters": {module: dict(list(state.items())[1:])}}
            )
            damages[f"half-{module}"] = b""
        for name in damages:
            with pytest.raises(ValueError, match=r"^path: expected"):
                self.agent_class.load(tmp_path / name)

    def test_another_format_is_named(self, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        trained_agent.save(tmp_path / "agent")
        write_other_format(tmp_path / "agent.zip", tmp_path / "new.zip")
        with pytest.raises(ValueError, match=r"path: expected an agent's file of format .*, got format 99"):
            self.agent_class.load(tmp_path / "new")

    @pytest.mark.parametrize("place", PLANTED_PICKLES)
    def test_a_planted_pickle_never_runs(self, place: str, trained_agent: ImitationAgent, tmp_path: Path) -> None:
        plant, readable = PLANTED_PICKLES[place]
        trained_agent.save(tmp_path / "agent")
        plant(tmp_path / "agent.zip", pickle_payload(tmp_path / "witness"), tmp_path / "planted.zip")
        loads: tuple[Callable[[Path], Any], ...] = (self.agent_class.load, load_agent, self.make().set_parameters)
        for load in loads:
            if readable:
                load(tmp_path / "planted.zip")
            else:
                with pytest.raises(ValueError, match=r"path: expected an agent's file"):
                    load(tmp_path / "planted.zip")
        assert not (tmp_path / "witness").exists()
