"""What defines AIME: the world model is learnt from play, and then left alone."""

import numpy as np
import pytest
import small
import torch
import toy

from aime_gym.agents import AIMEAgent
from aime_gym.data import TrajectoryDataset


def tiny(env, **changes):
    return AIMEAgent(env, seed=0, **{**small.TINY["aime"], **changes})


def test_the_world_model_is_bit_identical_after_imitate(point_mass):
    env, play, demos = point_mass
    agent = tiny(env).pretrain(play, progress_bar=False)
    frozen = [{n: t.clone() for n, t in m.state_dict().items()} for m in (agent.world_model, agent.inverse_model)]
    policy = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    agent.imitate(demos, progress_bar=False)
    for before, module in zip(frozen, (agent.world_model, agent.inverse_model), strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert any(not torch.equal(tensor, policy[name]) for name, tensor in agent.policy.state_dict().items())


def test_imitate_alone_collects_random_play_and_says_so(point_mass):
    env, _, demos = point_mass
    agent = tiny(env, play_timesteps=2 * toy.STEPS)
    with pytest.warns(UserWarning, match="collecting"):
        agent.imitate(demos, progress_bar=False)
    assert agent.pretrained
    assert agent.num_timesteps > 0


def test_data_may_come_with_the_constructor(point_mass):
    env, play, demos = point_mass
    agent = tiny(env, play=play, demonstrations=demos).imitate(progress_bar=False)
    assert agent.pretrained
    assert agent.num_timesteps == 0


@pytest.mark.parametrize("preset", ["aime", "dreamer"])
def test_presets_of_the_papers_start_from_scratch(preset, point_mass):
    env, play, demos = point_mass
    agent = AIMEAgent(
        env, preset=preset, seed=0, model_updates=1, policy_updates=1, horizon=8, batch_size=4, inverse_updates=1
    )
    phases = []
    agent.pretrain(play, callback=lambda p: phases.append(p.phase), progress_bar=False)
    agent.imitate(demos, callback=lambda p: phases.append(p.phase), progress_bar=False)
    assert phases == ["model", "inverse", "policy"]  # and no "clone"


def test_maximising_the_evidence_improves_it(point_mass):
    env, play, demos = point_mass
    agent = AIMEAgent(
        env, seed=0, **{**small.LEARNING["aime"], "warm_start": False, "action_prior": False, "continue_latents": False}
    )
    agent.pretrain(play, progress_bar=False)
    elbos = []
    agent.imitate(demos, callback=lambda p: elbos.append(p.metrics["elbo"]), progress_bar=False)
    assert elbos[-1] > elbos[0]


def test_infers_the_actions_that_were_taken(point_mass):
    env, play, demos = point_mass
    agent = AIMEAgent(env, seed=0, **small.LEARNING["aime"]).pretrain(play, progress_bar=False)
    errors = [
        np.square(inferred.actions - demo.actions).mean()
        for inferred, demo in zip(agent.infer_actions(demos), demos, strict=True)
    ]
    assert np.mean(errors) < 0.3 * np.concatenate([demo.actions for demo in demos]).var()


def test_acting_filters_as_training_does(point_mass):
    """Step by step through ``predict`` is one pass of the model over the same observations."""
    env, play, demos = point_mass
    agent = tiny(env).pretrain(play, progress_bar=False).imitate(demos, progress_bar=False)
    demo = demos[0]
    features, actions = agent._filter(TrajectoryDataset([demo.without_actions()], None), agent._policy_source)
    state = None
    for t, observation in enumerate(demo.observations):
        action, state = agent.predict(observation, state, deterministic=True)
        np.testing.assert_allclose(np.concatenate([state[0][0], state[1][0]]), features[t].numpy(), atol=1e-5)
        if t + 1 < len(actions):
            np.testing.assert_allclose(action, actions[t + 1].numpy(), atol=1e-5)


def test_ctrl_c_keeps_what_was_learnt(point_mass):
    env, play, demos = point_mass
    agent = tiny(env, model_updates=1000)
    before = {name: tensor.clone() for name, tensor in agent.world_model.state_dict().items()}

    def interrupt(progress):
        if progress.phase == "model":
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 100 of 1000"):
        agent.pretrain(play, callback=interrupt, progress_bar=False)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in agent.world_model.state_dict().items())
    assert np.isfinite(toy.mean_return(env, agent.imitate(demos, progress_bar=False), 2))


def test_the_action_prior_holds_actions_near_the_inverse_models_belief(point_mass):
    env, play, demos = point_mass
    budget = {"model_updates": 50, "inverse_updates": 200, "clone_updates": 200, "policy_updates": 100, "horizon": 8}
    distance = {}
    for action_prior in (True, False):
        agent = AIMEAgent(env, seed=0, world_model=small.MODEL, action_prior=action_prior, **budget)
        agent.pretrain(play, progress_bar=False)
        believed = agent.infer_actions(demos)
        agent.imitate(demos, progress_bar=False)
        distance[action_prior] = np.mean(
            [np.square(a.actions - b.actions).mean() for a, b in zip(believed, agent.infer_actions(demos), strict=True)]
        )
    assert distance[True] < distance[False]
