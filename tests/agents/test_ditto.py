"""What defines DITTO and D-GAIL: the policy learns in imagination, near the demonstrations, in a model that stays."""

import numpy as np
import pytest
import small
import torch

from aime_gym.agents import AIMEAgent, DITTOAgent, MBBCAgent, make_agent
from aime_gym.experiments.agent_spec import AgentSpec
from aime_gym.testing import toy
from aime_gym.testing.base import assert_identical, parameters

AGENTS = pytest.mark.parametrize("name", ["ditto", "d-gail"])


def tiny(name, env, **changes):
    return make_agent(name, env, seed=0, **{**small.TINY[name], **changes})


@AGENTS
def test_the_world_model_is_bit_identical_after_imitate(name, toy_task):
    env, play, demos = toy_task
    agent = tiny(name, env).pretrain(play, progress_bar=False)
    before = {name: weights.clone() for name, weights in agent.world_model.state_dict().items()}
    agent.imitate(demos, progress_bar=False)
    assert_identical(before, agent.world_model.state_dict())
    assert agent.num_timesteps == 0


@AGENTS
def test_an_oracle_reads_actions_and_refuses_to_go_without(name, toy_task):
    env, play, demos = toy_task
    with_actions, others = demos, [demo.with_actions(-demo.actions) for demo in demos]
    agents = [tiny(name, env, expert_actions=True).pretrain(play, progress_bar=False) for _ in range(2)]
    for agent, given in zip(agents, (with_actions, others), strict=True):
        agent.imitate(given, progress_bar=False)
    first, second = map(parameters, agents)
    assert any(not torch.equal(weights, second[key]) for key, weights in first.items())
    with pytest.raises(ValueError, match=r"demos\[0\].*actions"):
        agents[0].imitate([demo.without_actions() for demo in demos])


def test_only_the_oracle_counts_as_one():
    assert [AgentSpec.parse(text).reads_actions for text in ("ditto", "ditto:expert_actions=true", "mbbc", "aime")] == [
        False,
        True,
        True,
        False,
    ]
    assert not DITTOAgent.needs_demonstration_actions


@pytest.mark.parametrize("expert_actions", [True, False])
def test_without_updates_in_imagination_it_is_the_policy_that_it_starts_from(expert_actions, toy_task, tmp_path):
    """A clone of the demonstrations' own actions, or AIME's policy."""
    env, play, demos = toy_task
    aime = tiny("aime", env).pretrain(play, progress_bar=False)
    aime.save_world_model(tmp_path / "body")
    options = {"world_model": tmp_path / "body.safetensors"}
    ditto = tiny("ditto", env, **options, expert_actions=expert_actions, imagination_updates=0)
    ditto.imitate(demos, progress_bar=False)
    if expert_actions:
        phases = []
        started = tiny("ditto", env, **options, expert_actions=True, imagination_updates=1)
        started.imitate(demos, callback=lambda now, _: phases.append(now["phase"]), progress_bar=False)
        assert phases == ["clone"] * 3 + ["imagination"]
    else:
        aime = AIMEAgent(env, seed=0, **small.TINY["aime"] | options).imitate(demos, progress_bar=False)
        assert_identical(aime.policy.state_dict(), ditto.policy.state_dict())


FROM_SCRATCH = {
    "expert_actions": True,
    "cloned_start": False,
    "imagination_starts": 32,
    "actor_learning_rate": 1e-3,
    "imagination_updates": 100,
    "imagination_warmup": 0,
}


def test_a_policy_learns_in_imagination_alone_as_its_latent_distance_tells(toy_task, monkeypatch):
    monkeypatch.setattr("aime_gym.training.loop.LOG_INTERVAL", 50)
    env, _, demos = toy_task
    distances = []
    agent = DITTOAgent(env, seed=0, world_model=small.world_model(), **FROM_SCRATCH)

    def follow(now, _):
        if now["phase"] == "imagination" and now["metrics"]:
            distances.append(now["metrics"]["latent_distance"])  # the mean since the last entry in the log

    agent.imitate(demos, callback=follow, progress_bar=False)
    assert distances[-1] < 0.7 * distances[0]
    assert toy.score(env, agent) > 0.6


def test_a_callback_stops_at_a_latent_distance(toy_task):
    env, play, demos = toy_task
    agent = tiny("ditto", env, imagination_updates=10_000).pretrain(play, progress_bar=False)
    agent.imitate(
        demos, callback=lambda now, _: now["metrics"].get("latent_distance", np.inf) > 100, progress_bar=False
    )
    assert agent.interrupted
    assert agent.imitated
    assert agent.num_updates < 1000


def test_d_bc_is_a_clone_with_more_entropy():
    env, play, demos = toy.task(toy.DiscretePointMass)
    agents = [
        MBBCAgent(env, preset=preset, seed=0, **small.TINY["mbbc"] | {"clone_updates": 100})
        for preset in MBBCAgent.presets
    ]
    entropies = []
    for agent in agents:
        agent.pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
        features = torch.randn(200, agent.world_model.feature_size, generator=torch.Generator().manual_seed(0))
        entropies.append(-float(agent.policy(features).prior_kl().mean().detach()))
    assert entropies[1] > entropies[0]
    with pytest.raises(ValueError, match=r"^entropy_weight: expected 0 unless actions are discrete, got 0.1 with Box"):
        MBBCAgent(toy.PointMass(), preset="d-bc")


@pytest.mark.slow
def test_d_gail_learns_from_new_weights(toy_task):
    env, _, demos = toy_task
    budget = {"cloned_start": False, "imagination_updates": 1000, "actor_learning_rate": 3e-4}
    agent = make_agent("d-gail", env, seed=0, world_model=small.world_model(), **small.LEARNING["d-gail"] | budget)
    agent.imitate(demos, progress_bar=False)
    assert toy.score(env, agent) > 0.6
