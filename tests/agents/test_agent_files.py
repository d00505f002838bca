"""What a file decides: the fields of a configuration, spaces, weights and counters, each within bounds."""

import io
import math
import sys
import zipfile
from dataclasses import fields, replace

import pytest
import small

from aime_gym import make_agent
from aime_gym.agents import AIMEAgent, BCAgent
from aime_gym.agents.explorer import Explorer, ExplorerConfig
from aime_gym.agents.registry import AGENTS, load_agent
from aime_gym.config import MAX_NUMBER
from aime_gym.models.config import WorldModelConfig
from aime_gym.serialization import read_archive, write_archive
from aime_gym.testing import toy

VECTOR_AGENTS = [name for name in AGENTS if name != "patch-ail"]
CONFIGS = {
    **{name: kind.presets["default"] for name, kind in AGENTS.items()},
    "world model": WorldModelConfig(),
    "explorer": ExplorerConfig(),
}
NUMBERS = [
    (name, field.name)
    for name, config in CONFIGS.items()
    for field in fields(config)
    if getattr(field.type, "__name__", field.type) in ("int", "float", "int | None", "float | None")
]


def document_of(name):
    env = toy.DiscretePointMass() if name == "ilpo" else toy.PointMass()
    file = io.BytesIO()
    make_agent(name, env, seed=0, **small.TINY.get(name, {})).save(file)
    return read_archive(file)


def load(document, **options):
    file = io.BytesIO()
    write_archive(file, document)
    return load_agent(file, **options)


@pytest.mark.parametrize(("config", "name"), NUMBERS)
def test_every_number_of_a_configuration_has_bounds(config, name):
    for value in (
        -1e-3 if "float" in str(CONFIGS[config].__annotations__) else -1,
        10 * MAX_NUMBER,
        math.nan,
        "3",
        [1],
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            replace(CONFIGS[config], **{name: value})


@pytest.mark.parametrize("name", VECTOR_AGENTS)
def test_a_file_sets_no_other_argument_of_the_constructor(name, tmp_path, monkeypatch):
    (tmp_path / "imported.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    document = document_of(name)
    load(document)
    others = {
        "env": "imported:Task-v0",
        "checkpoint_dir": str(tmp_path / "checkpoints"),
        "tensorboard_log": str(tmp_path / "log"),
        "demonstrations": str(tmp_path),
        "play": str(tmp_path),
        "device": "meta",
        "policy_kwargs": {},
        "seed": 3,
        "verbose": 2,
        "unheard_of": None,
    }
    for other, value in others.items():
        with pytest.raises(ValueError, match=rf"^path: expected an agent's file.*{other}"):
            load(document | {"config": document["config"] | {other: value}})
    assert "imported" not in sys.modules
    assert [path.name for path in tmp_path.iterdir()] == ["imported.py"]


def test_a_file_names_no_other_file(tmp_path):
    document = document_of("aime")
    agent = AIMEAgent(toy.PointMass(), **small.TINY["aime"]).pretrain(toy.task().play, progress_bar=False)
    agent.save_world_model(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="^path: expected an agent's file"):
        load(document | {"config": document["config"] | {"world_model": str(tmp_path / "model.safetensors")}})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("config", {"stack": 10**6}),
        ("config", []),
        ("attributes", {"policy_kwargs": {"layers": 10**6}}),
        ("attributes", {"policy_kwargs": {"hidden": 16_384, "layers": 64}}),
        ("attributes", {"policy_kwargs": {"activation": "os.system"}}),
        ("attributes", {"seed": "x"}),
        ("attributes", {"pretrained": 3}),
        ("attributes", {"num_updates": -1}),
        ("observation_space", '{"type": "Box", "dtype": "float32", "shape": [10000000000], "low": 0, "high": 1}'),
        ("observation_space", '{"type": "Box", "dtype": "O", "shape": [1], "low": [0], "high": [1]}'),
        ("observation_space", '{"type": "Tuple", "subspaces": []}'),
        ("action_space", '{"type": "Discrete", "dtype": "int64", "n": 1000000000000, "start": 0}'),
        ("action_space", "[" * 100_000),
        ("generators", {"training": 3}),
    ],
)
def test_what_a_file_says_is_checked_before_anything_is_made(part, value):
    document = document_of("bc")
    changed = document[part] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match="^path: expected an agent's file"):
        load(document | {part: changed})


def test_an_explorer_s_file_sets_fields_only():
    explorer = Explorer(toy.PointMass(), seed=0, **small.TINY.get("explorer", {"world_model": small.MODEL}))
    file = io.BytesIO()
    explorer.save(file)
    document = read_archive(file)
    for wrong in ({"env": "imported:Task-v0"}, {"ensemble_hidden": 16_384, "ensemble": 64}):
        changed = io.BytesIO()
        write_archive(changed, document | {"config": document["config"] | wrong})
        with pytest.raises(ValueError, match="^path: expected an agent's file"):
            Explorer.load(changed)


def test_compressed_members_are_refused(tmp_path):
    BCAgent(toy.PointMass(), seed=0).save(tmp_path / "agent")
    with zipfile.ZipFile(tmp_path / "agent.zip") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    with pytest.raises(ValueError, match="expected document.json stored"):
        load_agent(tmp_path / "packed")


# Arguments of the caller


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"play_timesteps": -5}, "play_timesteps: "),
        ({"play_timesteps": "50"}, "play_timesteps: "),
        ({"checkpoint_interval": 2.5}, "checkpoint_interval: "),
        ({"policy_kwargs": {"hidden": 0}}, r"policy_kwargs\['hidden'\]: "),
        ({"policy_kwargs": {"layers": 64.0}}, r"policy_kwargs\['layers'\]: "),
        ({"policy_kwargs": 3}, "policy_kwargs: "),
        ({"seed": "3"}, "seed: .*'3'"),
        ({"seed": 3.5}, "seed: "),
        ({"seed": -1}, "seed: "),
        ({"device": "tpu"}, "device: "),
    ],
)
def test_arguments_of_another_kind_are_named(options, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        BCAgent(toy.PointMass(), **options)
    if not {"policy_kwargs"} & set(options):
        with pytest.raises(ValueError, match=f"^{named}"):
            load(document_of("bc"), **options)


@pytest.mark.parametrize("steps", ["32", None, math.nan, -1, 2.5])
def test_steps_of_another_kind_are_named(steps):
    with pytest.raises(ValueError, match="^total_timesteps: expected"):
        make_agent("gaifo", toy.PointMass(), demonstrations=toy.task().demos, **small.TINY["gaifo"]).learn(steps)
