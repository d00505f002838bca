"""Agents as text: types follow the configuration, and what is wrong is named."""

import numpy as np
import pytest

from aime_gym.agents import AIMEAgent, BCOAgent, list_agents, load_agent
from aime_gym.experiments.agent_spec import AgentSpec, training_env
from aime_gym.tasks import TaskConfig

PENDULUM = TaskConfig("Pendulum-v1", "state")
CARTPOLE = TaskConfig("CartPole-v1", "state")


def test_values_take_the_type_of_their_field():
    spec = AgentSpec.parse(
        "aime:model_updates=20,max_grad_norm=5,warm_start=False,continue_latents=false,world_model=dreamer"
    )
    assert spec.name == "aime"
    assert spec.options == {
        "model_updates": 20,
        "max_grad_norm": 5.0,
        "warm_start": False,
        "continue_latents": False,
        "world_model": "dreamer",
    }
    assert isinstance(spec.options["max_grad_norm"], float)


def test_values_of_a_file_are_checked_as_text_is():
    spec = AgentSpec.of("aime", {"model_updates": 20, "max_grad_norm": 5, "warm_start": False, "preset": "dreamer"})
    assert spec == AgentSpec.parse("aime:model_updates=20,max_grad_norm=5,warm_start=false,preset=dreamer")
    with pytest.raises(ValueError, match="agent bco: unknown option 'stick'; did you mean stack"):
        AgentSpec.of("bco", {"stick": 3})
    for value in (1.5, True, [1], {"one": 1}, "many"):
        with pytest.raises(ValueError, match=r"agent bco: stack: expected int, got"):
            AgentSpec.of("bco", {"stack": value})


def test_a_table_of_a_file_stays_one():
    options = {"algorithm_kwargs": {"n_steps": 32, "learning_rate": 1e-3}}
    assert AgentSpec.of("gaifo", options).options == options


@pytest.mark.parametrize("name", ["aime", "bco", "bc"])
def test_every_field_can_be_given_its_default(name):
    agent_class = AgentSpec.parse(name).agent_class
    for field, value in vars(agent_class.presets["default"]).items():
        if isinstance(value, int | float | str):
            assert AgentSpec.parse(f"{name}:{field}={value}").options == {field: value}


def test_a_label_is_what_was_parsed():
    for text in ("bc", "bco:stack=3,learning_rate=0.01"):
        assert AgentSpec.parse(text).label == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aimee", "did you mean aime"),
        ("aime:modle_updates=1", "unknown option 'modle_updates'; did you mean model_updates"),
        ("aime:model_updates=many", "model_updates: expected int, got 'many'"),
        ("aime:model_updates=1.5", "model_updates: expected int, got '1.5'"),
        ("aime:warm_start=maybe", "warm_start: expected bool, got 'maybe'"),
        ("bco:stack", "expected option=value, got 'stack'"),
    ],
)
def test_wrong_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        AgentSpec.parse(text)


def test_what_the_agent_refuses_names_the_agent():
    with PENDULUM.make() as env, pytest.raises(ValueError, match="agent aime:preset=foo: preset"):
        AgentSpec.parse("aime:preset=foo").build(PENDULUM, env, 0)


@pytest.mark.parametrize(
    ("modality", "text", "stack"), [("state", "bco", 1), ("state", "bco:stack=3", 3), ("position", "bco", 5)]
)
def test_one_observation_is_enough_where_it_holds_the_velocities(modality, text, stack):
    task = TaskConfig("Pendulum-v1", modality, positions=(0, 1) if modality == "position" else ())
    with task.make() as env:
        assert AgentSpec.parse(text).build(task, env, 0).config.stack == stack


@pytest.mark.parametrize("name", list_agents())
def test_a_file_is_loaded_as_its_class(tmp_path, name):
    # One takes Discrete actions alone, the other images.
    task = {"ilpo": CARTPOLE, "patch-ail": TaskConfig("reach-v3", "pixels", image_size=16)}.get(name, PENDULUM)
    with task.make() as env:
        agent = AgentSpec.parse(name).build(task, env, 0)
        agent.save(tmp_path / "agent.zip")
        again = load_agent(tmp_path / "agent.zip", env)
        observation, _ = env.reset(seed=0)
    assert type(again) is type(agent)
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


def test_no_file_of_an_agent(tmp_path):
    with PENDULUM.make() as env, pytest.raises(FileNotFoundError, match="none.zip"):
        load_agent(tmp_path / "none.zip", env)


def test_kinds():
    assert (AgentSpec("aime").agent_class, AgentSpec("bco").agent_class) == (AIMEAgent, BCOAgent)


@pytest.mark.parametrize(("name", "copies"), [("gail", 8), ("ilpo", 1), ("bco", 1)])
def test_an_agent_trains_in_as_many_copies_as_suit_it(name, copies):
    agent_class = AgentSpec.parse(name).agent_class
    with training_env(agent_class, CARTPOLE) as env:
        assert agent_class(env, seed=0).n_envs == copies
