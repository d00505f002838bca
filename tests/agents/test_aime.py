"""What defines AIME: the world model is learnt from play, and then left alone."""

import numpy as np
import pytest
import safetensors.torch
import small
import torch

from aime_gym.agents import AIMEAgent, make_agent
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.action_inference import policy_source
from aime_gym.model_based.config import AIMEConfig
from aime_gym.model_based.filtering import filter_trajectories
from aime_gym.models.config import PRESETS
from aime_gym.testing import toy

FEW = {"batch_size": 32, "sequence_length": 16}
FROM_SCRATCH = {"warm_start": False, "action_prior": False, "continue_latents": False}


def tiny(env, **changes):
    return AIMEAgent(env, seed=0, **{**small.TINY["aime"], **changes})


def test_the_world_model_is_bit_identical_after_imitate(toy_task):
    env, play, demos = toy_task
    agent = tiny(env).pretrain(play, progress_bar=False)
    frozen = [{n: t.clone() for n, t in m.state_dict().items()} for m in (agent.world_model, agent.inverse_model)]
    policy = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    agent.imitate(demos, progress_bar=False)
    for before, module in zip(frozen, (agent.world_model, agent.inverse_model), strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert any(not torch.equal(tensor, policy[name]) for name, tensor in agent.policy.state_dict().items())


def test_imitate_alone_collects_random_play_and_says_so(toy_task):
    env, _, demos = toy_task
    agent = tiny(env, play_timesteps=2 * toy.STEPS)
    with pytest.warns(UserWarning, match="collecting"):
        agent.imitate(demos, progress_bar=False)
    assert agent.pretrained
    assert agent.num_timesteps > 0


def test_data_may_come_with_the_constructor(toy_task):
    env, play, demos = toy_task
    agent = tiny(env, play=play, demonstrations=demos).imitate(progress_bar=False)
    assert agent.pretrained
    assert agent.num_timesteps == 0


@pytest.mark.parametrize("preset", ["aime", "dreamer"])
def test_presets_of_the_papers_start_from_scratch(preset, toy_task):
    env, play, demos = toy_task
    agent = AIMEAgent(
        env,
        preset=preset,
        seed=0,
        model_updates=1,
        policy_updates=1,
        sequence_length=8,
        batch_size=4,
        inverse_updates=1,
    )
    phases = []
    agent.pretrain(play, callback=lambda now, _: phases.append(now["phase"]), progress_bar=False)
    agent.imitate(demos, callback=lambda now, _: phases.append(now["phase"]), progress_bar=False)
    assert phases == ["model", "inverse", "policy"]  # and no "clone"


def test_maximising_the_evidence_improves_it(toy_task, monkeypatch):
    monkeypatch.setattr("aime_gym.training.loop.LOG_INTERVAL", 20)
    env, _, demos = toy_task
    agent = AIMEAgent(env, seed=0, world_model=small.world_model(), **FROM_SCRATCH | FEW | {"policy_updates": 40})
    elbos = []
    agent.imitate(demos, callback=lambda now, _: elbos.append(now["metrics"].get("elbo", np.nan)), progress_bar=False)
    elbos = [elbo for elbo in elbos if np.isfinite(elbo)]
    assert elbos[-1] > elbos[0]


class Nearby(toy.PointMass):
    """Another task of the same body: hold still from somewhere near the origin."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0.3 * self.position
        return self.position.astype(np.float32), {}


def inference_error(agent, demos):
    """Mean squared error of inferred actions, in units of the actions' variance."""
    inferred, true = (np.concatenate([t.actions for t in ts]) for ts in (agent.infer_actions(demos), demos))
    return np.square(inferred - true).mean() / true.var()


def test_infers_the_actions_that_were_taken(toy_task):
    env, _, demos = toy_task
    assert inference_error(AIMEAgent(env, world_model=small.world_model()), demos) < 0.3


def test_a_world_model_serves_another_task_of_the_same_body():
    env = Nearby()
    agent = AIMEAgent(env, world_model=small.world_model(), seed=1, policy_updates=0, clone_updates=250)
    demos = toy.demonstrations(env)
    assert inference_error(agent, demos) < 0.3
    agent.imitate([demo.without_actions() for demo in demos], progress_bar=False)
    random, expert = toy.mean_return(env, "random"), toy.mean_return(env, toy.expert(env))
    assert (toy.mean_return(env, agent) - random) / (expert - random) > 0.5


def test_discrete_actions_are_inferred():
    """By comparing what each explains, and by a policy that nothing but the evidence teaches."""
    env, _, demos = toy.task(toy.DiscretePointMass, play=60, demos=10)
    world_model = small.world_model(toy.DiscretePointMass)
    agent = AIMEAgent(env, seed=0, world_model=world_model)
    inferred, true = (np.concatenate([t.actions for t in ts]) for ts in (agent.infer_actions(demos), demos))
    assert np.mean(inferred == true) > 0.9
    agent = AIMEAgent(env, seed=0, world_model=world_model, **FROM_SCRATCH | FEW | {"policy_updates": 400})
    assert toy.score(env, agent.imitate(demos, progress_bar=False)) > 0.4


@pytest.mark.parametrize("make", [toy.PointMass, toy.DiscretePointMass])
def test_acting_filters_as_training_does(make):
    """Step by step through ``predict`` is one pass of the model over the same observations."""
    env, play, demos = toy.task(make)
    agent = tiny(env).pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    demo = demos[0]
    features, actions, _ = filter_trajectories(
        agent.world_model,
        TrajectoryDataset([demo.without_actions()], None),
        policy_source(agent.policy, agent.action_encoding.size),
    )
    state = None
    for t, observation in enumerate(demo.observations):
        action, state = agent.predict(observation, state, deterministic=True)
        np.testing.assert_allclose(np.concatenate([state[0][0], state[1][0]]), features[t].numpy(), atol=1e-5)
        if t + 1 < len(actions):
            np.testing.assert_allclose(action, agent.action_encoding.decode(actions[[t + 1]].numpy())[0], atol=1e-5)


def test_ctrl_c_keeps_what_was_learnt(toy_task):
    env, play, demos = toy_task
    agent = tiny(env, model_updates=1000)
    before = {name: tensor.clone() for name, tensor in agent.world_model.state_dict().items()}

    def interrupt(now, _):
        if now["phase"] == "model" and now["updates"] == 100:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 100 of 1000"):
        agent.pretrain(play, callback=interrupt, progress_bar=False)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in agent.world_model.state_dict().items())
    assert np.isfinite(toy.mean_return(env, agent.imitate(demos, progress_bar=False), 2))


# ---- world models as files ----


def parameters(agent):
    return {
        f"{module}.{name}": tensor for module, state in agent.get_parameters().items() for name, tensor in state.items()
    }


def assert_identical(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def exported(toy_task, tmp_path_factory):
    """An agent that has pretrained, and the file of its world model."""
    env, play, _ = toy_task
    agent = tiny(env).pretrain(play, progress_bar=False)
    path = tmp_path_factory.mktemp("models") / "body.safetensors"
    agent.save_world_model(path)
    return agent, path


def twin(exported, tmp_path, **changes):
    """A copy of the agent that exported."""
    exported[0].save(tmp_path / "exporter")
    return AIMEAgent.load(tmp_path / "exporter", env=toy.PointMass(), **changes)


@pytest.mark.parametrize("changes", [{}, FROM_SCRATCH], ids=["default", "from scratch"])
def test_a_policy_from_an_imported_model_is_the_exporters(changes, exported, toy_task, tmp_path):
    exporter, path = exported
    env, _, demos = toy_task
    imported = make_agent("aime", env, **small.TINY["aime"] | {"world_model": str(path)} | changes)
    assert imported.pretrained
    assert imported.config.world_model == exporter.config.world_model
    agents = [twin(exported, tmp_path, **changes), imported]
    for agent in agents:
        agent.set_random_seed(7)
        agent.imitate(demos, progress_bar=False)
    assert_identical(*map(parameters, agents))
    assert imported.num_timesteps == 0  # and no play was collected


def test_pretrain_goes_on_from_an_imported_model(exported, toy_task, tmp_path):
    env, play, demos = toy_task
    agents = [twin(exported, tmp_path), tiny(env, world_model=exported[1])]
    for agent in agents:
        agent.set_random_seed(7)
        agent.pretrain(play[:20], progress_bar=False).imitate(demos, progress_bar=False)
    assert_identical(*map(parameters, agents))
    before, after = (agent.world_model.parameters() for agent in (exported[0], agents[0]))
    differs = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert any(differs)


def test_an_agent_with_an_imported_model_needs_the_file_no_more(exported, toy_task, tmp_path):
    env, _, demos = toy_task
    path = tmp_path / "copy.safetensors"
    exported[0].save_world_model(path)
    agent = tiny(env, world_model=path)
    path.unlink()
    agent.save(tmp_path / "agent")
    loaded = AIMEAgent.load(tmp_path / "agent", env=env)
    assert loaded.config == agent.config
    assert_identical(parameters(loaded), parameters(agent))
    loaded.imitate(demos, progress_bar=False)


def test_a_preset_keeps_everything_but_the_model(exported, toy_task):
    env, _, demos = toy_task
    agent = AIMEAgent(env, preset="aime", world_model=exported[1], policy_updates=1, sequence_length=8, batch_size=4)
    assert agent.config.world_model == exported[0].config.world_model != PRESETS["aime"]
    assert not agent.config.warm_start
    agent.imitate(demos, progress_bar=False)


def test_a_loaded_agent_may_start_from_another_world_model(exported, toy_task, tmp_path):
    env, play, demos = toy_task
    other = tiny(env, world_model="aime", max_grad_norm=7.0).pretrain(play[:3], progress_bar=False)
    other.imitate(demos, progress_bar=False).save(tmp_path / "other")
    agent = AIMEAgent.load(tmp_path / "other", env=env, world_model=exported[1])
    assert agent.config.max_grad_norm == 7.0
    assert agent.pretrained
    assert not agent.imitated
    assert_identical(*(a.world_model.state_dict() for a in (agent, exported[0])))
    agent.imitate(demos, progress_bar=False)
    assert_identical(
        parameters(agent),
        parameters(tiny(env, world_model=exported[1], max_grad_norm=7.0).imitate(demos, progress_bar=False)),
    )


def test_files_that_are_no_world_model_for_the_environment_are_named(exported, toy_task, tmp_path):
    env, _, _ = toy_task
    content = exported[1].read_bytes()
    flipped = bytearray(content)
    flipped[-1] ^= 1
    damages = {"torn": content[: len(content) // 2], "flipped": bytes(flipped), "noise": b"noise" * 99, "empty": b""}
    for name, damaged in damages.items():
        (tmp_path / f"{name}.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^world_model: expected a world model's file, got .*{name}[^\n]*$"):
            tiny(env, world_model=tmp_path / f"{name}.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="^world_model: expected a file of the format .* got None in .*other"):
        tiny(env, world_model=tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="^world_model: expected a world model's file, found none at nowhere"):
        tiny(env, world_model="nowhere.safetensors")
    with pytest.raises(ValueError, match="^world_model: expected one of .*safetensors.*, got 'walker'"):
        tiny(env, world_model="walker")
    with pytest.raises(
        ValueError,
        match=r"^world_model: expected the environment's sensors {'horizontal': 1, 'vertical': 1} and 2 actions, "
        r"got sensors {'observation': 2} and 2 actions in .*body.safetensors$",
    ):
        tiny(toy.SensorsPointMass(), world_model=exported[1])


def test_a_world_model_without_an_inverse_model(toy_task, tmp_path):
    env, play, demos = toy_task
    agent = tiny(env, inverse_updates=0)
    with pytest.raises(ValueError, match="^world_model: .*call pretrain first"):
        agent.save_world_model(tmp_path / "new")
    agent.pretrain(play, progress_bar=False).save_world_model(tmp_path / "plain")
    with pytest.raises(ValueError, match="^world_model: expected one with a fitted inverse model"):
        tiny(env, world_model=tmp_path / "plain.safetensors")
    tiny(env, world_model=tmp_path / "plain.safetensors", **FROM_SCRATCH).imitate(demos, progress_bar=False)
    with pytest.raises(ValueError, match="^world_model: expected a path ending in .safetensors, got .*model.zip"):
        agent.save_world_model(tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["plain.safetensors"]


@pytest.mark.parametrize("seed", [0, None])
def test_a_checkpoint_knows_which_world_model_it_started_from(seed, exported, toy_task, tmp_path):
    env, play, demos = toy_task
    other = tmp_path / "other.safetensors"
    tiny(env).pretrain(play[:3], progress_bar=False).save_world_model(other)

    def agent(path):
        options = small.TINY["aime"] | {"seed": seed, "checkpoint_dir": tmp_path, "checkpoint_interval": 1}
        return AIMEAgent(env, **options | {"world_model": path})

    def stop(now, _):
        if now["phase"] == "policy":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent(exported[1]).imitate(demos, callback=stop, progress_bar=False)
    with pytest.raises(ValueError, match="^checkpoint_dir: .*left by another run, of another starting weights"):
        agent(other).imitate(demos, progress_bar=False)
    seen = []
    resumed = agent(exported[1])
    resumed.imitate(demos, callback=lambda now, _: seen.append(now["phase"]), progress_bar=False)
    assert seen == ["policy"] * 2  # of three
    if seed is not None:
        assert_identical(
            parameters(resumed), parameters(tiny(env, world_model=exported[1]).imitate(demos, progress_bar=False))
        )


@pytest.mark.parametrize(("world_model", "named"), [({"depth": 3}, "depth"), (3, "got int"), ("other", "got 'other'")])
def test_a_configuration_that_is_none_is_named(world_model, named):
    with pytest.raises(ValueError, match=f"^world_model: expected .*{named}"):
        AIMEConfig(world_model=world_model)
