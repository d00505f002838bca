"""A world model's file: what goes in comes out, any reader sees what it is, and a torn write leaves nothing."""

import json
import re

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from aime_gym.model_based.pretraining import PretrainingConfig
from aime_gym.models.config import PRESETS, WorldModelConfig
from aime_gym.models.inverse_model import LatentInverseModel
from aime_gym.models.pretrained import _digest, imported_world_model, read_world_model, write_world_model
from aime_gym.models.world_model import WorldModel
from aime_gym.training.supervised import StackedConfig

SMALL = WorldModelConfig(deter=8, stoch=4, hidden=8, decoder_hidden=8, sigma=None)
SENSORS = {"angles": (3,), "height": (1,)}


def models(sensors=SENSORS, actions=2, *, discrete=False):
    world_model = WorldModel(SMALL, sensors, actions)
    observation = sum(size for (size,) in sensors.values())
    return world_model, LatentInverseModel(world_model.feature_size, observation, actions, discrete=discrete, hidden=8)


def same(one, other):
    return all(
        torch.equal(tensor, b.state_dict()[name])
        for a, b in zip(one, other, strict=True)
        for name, tensor in a.state_dict().items()
    )


def test_round_trip(tmp_path):
    written, fresh = models(), models()
    written[0].fit_standardizers({name: torch.randn(9, *shape) for name, shape in SENSORS.items()})
    written[1].variance.fill_(0.5)
    write_world_model(tmp_path / "new" / "walker", *written)
    assert not same(written, fresh)
    read = read_world_model(tmp_path / "new" / "walker.safetensors")
    read.restore(*fresh)
    assert same(written, fresh)
    assert (read.config, read.sensors, read.action_size, read.discrete) == (SMALL, SENSORS, 2, False)
    assert fresh[1].fitted


def test_any_reader_sees_what_it_is(tmp_path):
    write_world_model(tmp_path / "walker", *models())
    with safe_open(tmp_path / "walker.safetensors", framework="pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["format"] == "aime_gym world model 1"
    assert WorldModelConfig(**json.loads(metadata["configuration"])) == SMALL
    assert json.loads(metadata["sensors"]) == {"angles": 3, "height": 1}
    assert json.loads(metadata["action_size"]) == 2
    assert "world_model.standardizers.angles.mean" in names
    assert "inverse_model.variance" in names


def test_equal_contents_have_equal_digests(tmp_path):
    written = models()
    for name in ("one", "same"):
        write_world_model(tmp_path / name, *written)
    written[1].variance[0] = 1
    write_world_model(tmp_path / "other", *written)
    one, same, other = (read_world_model(tmp_path / f"{name}.safetensors").digest for name in ("one", "same", "other"))
    assert one == same != other


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_world_model(tmp_path / "walker", *models())
    before = (tmp_path / "walker.safetensors").read_bytes()

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_world_model(tmp_path / "walker", *models())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_every_torn_or_changed_byte_is_noticed(tmp_path):
    write_world_model(tmp_path / "walker", *models())
    path = tmp_path / "walker.safetensors"
    content = path.read_bytes()
    damages = [content[:length] for length in range(0, len(content), 97)]
    for place in range(0, len(content), 49):
        changed = bytearray(content)
        changed[place] ^= 1
        damages.append(bytes(changed))
    target = models()
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^world_model: expected .* {re.escape(str(path))}[^\n]*$"):
            read_world_model(path).restore(*target)


def test_another_body_is_refused(tmp_path):
    write_world_model(tmp_path / "walker", *models())
    read = read_world_model(tmp_path / "walker.safetensors")
    for sensors, actions in (({"angles": (3,)}, 2), ({"angles": (3,), "height": (2,)}, 2), (SENSORS, 3)):
        with pytest.raises(ValueError, match="^world_model: expected the environment's sensors .* got .* 2 actions in"):
            read.restore(*models(sensors, actions))


def test_one_hot_actions_are_another_body(tmp_path):
    for discrete, kinds in (
        (False, "2 one-hot actions, got .* 2 actions"),
        (True, "2 actions, got .* 2 one-hot actions"),
    ):
        write_world_model(tmp_path / "walker", *models(discrete=discrete))
        read = read_world_model(tmp_path / "walker.safetensors")
        read.restore(*models(discrete=discrete))
        with pytest.raises(ValueError, match=f"^world_model: expected the environment's sensors .* and {kinds} in"):
            read.restore(*models(discrete=not discrete))


def test_files_that_do_not_say_whether_actions_are_one_hot_hold_continuous_ones(tmp_path):
    path = tmp_path / "walker.safetensors"
    write_world_model(path, *models())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = safetensors.torch.load_file(path)
    del metadata["discrete"]
    metadata["digest"] = _digest(
        {name: metadata[name] for name in ("configuration", "sensors", "action_size")}, weights
    )
    safetensors.torch.save_file(weights, path, metadata)
    read = read_world_model(path)
    assert not read.discrete
    read.restore(*models())


def test_weights_that_are_not_those_of_the_configuration(tmp_path):
    """A file of somebody who filled in the metadata by hand."""
    path = tmp_path / "walker.safetensors"
    write_world_model(path, *models())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file({"world_model.x": torch.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match=r"^world_model: expected a world model's file, got [^\n]*$"):
        read_world_model(path)


@pytest.mark.parametrize("value", [*PRESETS, SMALL, None, {"deter": 8}])
def test_what_is_no_path_is_not_read(value):
    options = {"world_model": value}
    assert imported_world_model(options, PretrainingConfig()) is None
    assert options == {"world_model": value}


def test_an_agent_without_a_world_model_reads_none():
    assert imported_world_model({"world_model": "nowhere.safetensors"}, StackedConfig()) is None
