"""Diagnoses: they find either barrier where there is one, and change nothing."""

import json

import numpy as np
import pytest
import small
import torch
from gymnasium import spaces

from aime_gym.agents import AIMEAgent
from aime_gym.analysis.diagnosis import (
    _GRID_SIZE,
    _POSTERIOR_RECORDS,
    action_posterior,
    candidate_actions,
    record_evidence,
)
from aime_gym.data import TrajectoryDataset, collect
from aime_gym.models.rssm import RecordedActions
from aime_gym.testing import toy
from aime_gym.types import Trajectory

BUDGET = small.PRETRAINING | {"model_updates": 250}


class IdleActionPointMass(toy.PointMass):
    """Point mass with a third action, which has no effect."""

    action_space = spaces.Box(-1, 1, (3,), np.float32)
    goal = 0.0

    def push(self, action):
        return np.asarray(action)[:2]


class FarPointMass(IdleActionPointMass):
    """Task of the same body far from all play."""

    goal = 6.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.position + self.goal
        return self.observe(), {}


def demonstrations(env, episodes=6, seed=2):
    """Collect the expert's episodes, with noise for the action without effect."""
    noise = np.random.default_rng(seed)

    def act(observation):
        push = np.clip(4 * (env.goal - env.position) - 7 * env.velocity, -1, 1)
        return np.append(push, noise.uniform(-1, 1)).astype(np.float32)

    return collect(env, act, episodes, seed=seed, progress=False)


@pytest.fixture(scope="module")
def env():
    return IdleActionPointMass()


@pytest.fixture(scope="module")
def play(env):
    return toy.play_data(env, 40)


@pytest.fixture(scope="module")
def fresh_play(env):
    return toy.play_data(env, 15, seed=77)


@pytest.fixture(scope="module")
def agent(env, play):
    """Agent with a trained world model."""
    return AIMEAgent(env, seed=0, **BUDGET).pretrain(play, progress_bar=False)


@pytest.fixture(scope="module", autouse=True)
def short_cross_validation():
    """Enough updates for policies whose errors tell few demonstrations from many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aime_gym.analysis.diagnosis._CLONE_UPDATES", 60)
        yield


@pytest.fixture(scope="module")
def report(agent, env, fresh_play):
    """Report of an agent with enough play and demonstrations."""
    return agent.diagnose(demonstrations(env, 12), fresh_play)


@pytest.fixture
def quick(monkeypatch):
    """Shorten the cross-validation, for tests that are not about coverage."""
    monkeypatch.setattr("aime_gym.analysis.diagnosis._CLONE_UPDATES", 5)


@pytest.fixture
def toy_task(quick):
    """Toy task, for tests that need no trained agent."""
    return toy.task()


def tiny(env, **changes):
    return AIMEAgent(env, seed=0, **{**small.TINY["aime"], **changes})


@pytest.fixture
def untrained(toy_task):
    """Agent after a few updates, on the shared play."""
    return tiny(toy_task.env).pretrain(toy_task.play[:5], progress_bar=False)


# ---- the barriers ----


def test_nothing_is_missing_where_play_and_demonstrations_suffice(report):
    assert report.verdict == ("fine",)


@pytest.mark.usefixtures("quick")
def test_demonstrations_from_where_play_never_was_need_more_play(agent, report, fresh_play):
    far = agent.diagnose(demonstrations(FarPointMass()), fresh_play)
    assert far.evidence.outside > 0.5 > report.evidence.outside
    assert far.outside_play > 0.5 > report.outside_play
    assert any("lie where play has not been" in reason for reason in far.play_reasons)
    assert "more play" in far.verdict


@pytest.mark.usefixtures("quick")
def test_held_out_play_is_no_barrier(agent, env):
    """Diagnose play as if it were demonstrations: enough of it that the quantiles of two draws agree."""
    other, reference = (toy.play_data(env, 40, seed=seed) for seed in (78, 77))
    other = agent.diagnose([t.without_actions() for t in other], reference)
    assert other.evidence.outside < 0.15
    assert "more play" not in other.verdict


@pytest.mark.usefixtures("quick")
def test_play_that_is_unknown_as_well_hides_nothing(agent):
    """Diagnose without true actions, and compared with play that is as far from the training data."""
    far = FarPointMass()
    demos = [demo.without_actions() for demo in demonstrations(far)]
    report = agent.diagnose(demos, toy.play_data(far, 15, seed=77))
    assert report.evidence.outside < 0.5
    assert "more play" in report.verdict


def test_an_action_that_does_nothing_is_unidentified(report):
    assert [action.identified for action in report.actions] == [True, True, False]
    assert any("do not show action[2]" in note for note in report.notes)
    # ... which no play can change, so that it neither counts among the errors nor asks for more.
    assert report.play_error < 0.5 < report.actions[2].play_error[0] / report.actions[2].play_error[1]


def test_one_demonstration_needs_more_of_them_and_many_do_not(agent, env, report, fresh_play):
    one, two = (agent.diagnose(demonstrations(env, count), fresh_play) for count in (1, 2))
    assert "more demonstrations" in one.verdict
    assert one.coverage.errors == ()
    assert two.coverage.errors[-1] > report.coverage.errors[-1]
    assert report.coverage.sizes == (2, 4, 9)
    assert report.coverage.errors[0] > report.coverage.errors[-1]
    assert len(report.coverage.by_demonstration) == 12


@pytest.mark.usefixtures("quick")
def test_the_worst_step_is_where_something_happened_that_no_action_does(agent, env, fresh_play):
    demos = demonstrations(env)
    jumped = demos[3].observations.copy()
    jumped[20:, 1] += 0.5
    demos[3] = Trajectory(jumped, demos[3].actions)
    worst = agent.diagnose(demos, fresh_play).evidence.worst[0]
    assert (worst.trajectory, worst.step, worst.sensor) == (3, 20, "observation[1]")
    assert worst.ratio > 1


# ---- true actions ----


@pytest.mark.usefixtures("quick")
def test_true_actions_that_were_inferred_leave_no_gap(agent, env, fresh_play):
    report = agent.diagnose(agent.infer_actions(demonstrations(env)), fresh_play)
    assert report.demo_error == pytest.approx(0, abs=1e-8)
    for true, inferred in zip(report.evidence.demos_true, report.evidence.demos, strict=True):
        np.testing.assert_allclose(true, inferred, atol=0.1)


@pytest.mark.usefixtures("quick")
def test_true_actions_change_nothing_else(agent, env, fresh_play):
    """Compare all figures but the errors, which need true actions."""
    demos = demonstrations(env)
    report, blind = (agent.diagnose(given, fresh_play) for given in (demos, [demo.without_actions() for demo in demos]))
    assert blind.evidence.demos_true is blind.demo_error is None
    for one, other in zip(blind.evidence.demos, report.evidence.demos, strict=True):
        np.testing.assert_array_equal(one, other)
    assert blind.coverage == report.coverage
    assert [action.demo_spread for action in blind.actions] == [action.demo_spread for action in report.actions]
    assert report.demo_error < 0.5


# ---- the numbers are what they are said to be ----


def test_the_evidence_of_the_steps_sums_to_that_of_the_model(untrained, toy_task):
    dataset = TrajectoryDataset(toy_task.demos[:3], untrained.action_encoding)
    model = untrained.world_model
    evidence = record_evidence(model, dataset, lambda rows, _: RecordedActions(dataset.prev_actions[rows]))
    rows, _ = next(dataset.episodes(3))
    whole = model.evidence(
        {name: values[rows] for name, values in dataset.observations.items()},
        RecordedActions(dataset.prev_actions[rows]),
        torch.zeros(*rows.shape, model.config.stoch),
    )
    assert float(evidence.elbo.sum() / 3) == pytest.approx(float(whole.elbo), rel=1e-5)


def test_the_posterior_of_an_action_is_that_of_the_evidence(agent, env):
    """Compare with a plain loop over the values of one action at one step."""
    dataset, model = TrajectoryDataset(demonstrations(env, 2), agent.action_encoding), agent.world_model
    evidence = record_evidence(model, dataset, lambda rows, _: RecordedActions(dataset.prev_actions[rows]))
    rows, means, stds = action_posterior(model, candidate_actions(3, False, dataset.device), dataset, evidence)
    m, index, row = 7, 1, int(rows[7])
    before = model.rssm.initial_state(1)._replace(
        deter=evidence.features[row - 1 : row, : model.config.deter],
        stoch=evidence.features[row - 1 : row, model.config.deter :],
    )
    grid = np.linspace(-1, 1, _GRID_SIZE)
    elbos = []
    for value in grid:
        actions = dataset.prev_actions[row : row + _POSTERIOR_RECORDS, None].clone()
        actions[0, 0, index] = value
        observations = {
            name: values[row : row + _POSTERIOR_RECORDS, None] for name, values in dataset.observations.items()
        }
        noise = torch.zeros(_POSTERIOR_RECORDS, 1, model.config.stoch)
        elbos.append(float(model.evidence(observations, RecordedActions(actions), noise, initial=before).elbo))
    weights = np.exp(np.array(elbos) - max(elbos))
    weights /= weights.sum()
    mean = (weights * grid).sum()
    assert float(means[m, index]) == pytest.approx(mean, abs=1e-3)
    assert float(stds[m, index]) == pytest.approx(np.sqrt((weights * (grid - mean) ** 2).sum()), abs=1e-3)


# ---- it only looks ----


def test_a_diagnosis_is_the_same_each_time(untrained, toy_task):
    one, other = (untrained.diagnose(toy_task.demos[:3], toy_task.play[:3]).to_dict() for _ in range(2))
    assert one == other


def test_a_diagnosis_in_the_middle_changes_nothing(toy_task):
    env, play, demos = toy_task
    weights, states = [], []
    for looks in (False, True):
        agent = tiny(env).pretrain(play[:5], progress_bar=False)
        if looks:
            before = torch.get_rng_state(), agent.num_updates
            agent.diagnose(demos[:3], play[5:8])
            assert torch.equal(before[0], torch.get_rng_state())
            assert before[1] == agent.num_updates
        agent.imitate(demos, progress_bar=False)
        states.append((agent.generator.get_state(), agent.acting_generator.get_state()))
        weights.append([part for state in agent.get_parameters().values() for part in state.values()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_after_imitation_the_actions_are_the_policys(untrained, toy_task):
    demos, play = toy_task.demos[:3], toy_task.play[:3]
    before = untrained.diagnose(demos, play)
    after = untrained.imitate(demos, progress_bar=False).diagnose(demos, play)
    assert before.demo_error != after.demo_error
    assert before.coverage == after.coverage


# ---- what it is told, and what it shows ----


def test_play_that_was_trained_on_is_called_that(toy_task):
    env, play, demos = toy_task
    agent = tiny(env, play=play[:5], demonstrations=demos[:3])
    agent.pretrain(progress_bar=False)
    report = agent.diagnose()
    assert not report.play_held_out
    assert any("trained on" in note for note in report.notes)
    assert agent.diagnose(play=play[5:8]).play_held_out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"demos": None}, "^demos: expected trajectories, got None$"),
        ({"play": None}, "^play: expected trajectories, got None$"),
        ({"demos": []}, "^demos: expected at least one trajectory"),
        ({"play": "without"}, r"^play\[0\].actions: expected one action per transition, got None"),
        ({"play": "other"}, r"^play\[0\].observations: expected a single array"),
    ],
)
def test_bad_input_ends_in_one_error(arguments, message, untrained, toy_task):
    _, play, demos = toy_task
    named = {"without": [play[0].without_actions()], "other": toy.play_data(toy.SensorsPointMass(), 1)}
    given = {"demos": demos, "play": play} | {
        name: named.get(value) if isinstance(value, str) else value for name, value in arguments.items()
    }
    with pytest.raises(ValueError, match=message):
        untrained.diagnose(**given)


def test_an_agent_without_a_world_model_is_told_so(toy_task):
    with pytest.raises(ValueError, match="^diagnose: .*call pretrain first$"):
        tiny(toy_task.env).diagnose(toy_task.demos, toy_task.play)


@pytest.mark.parametrize("count", [1, 3])
def test_a_report_can_be_printed_kept_and_drawn(count, untrained, toy_task, tmp_path):
    report = untrained.diagnose(toy_task.demos[:count], toy_task.play[:3])
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["verdict"] == list(report.verdict)
    assert len(document["evidence"]["demos"]) == count
    text = str(report)
    assert f"verdict: {' and '.join(report.verdict)}" in text
    assert max(map(len, text.splitlines())) <= 110
    report.figure(tmp_path / "diagnosis.png")
    assert (tmp_path / "diagnosis.png").stat().st_size > 10_000


def test_trajectories_of_two_records_and_several_sensors():
    env, play, demos = toy.task(toy.SensorsPointMass)
    agent = tiny(env).pretrain(play[:3], progress_bar=False)
    short = [
        Trajectory({name: values[:2] for name, values in demo.observations.items()}, demo.actions[:1])
        for demo in demos[:2]
    ]
    report = agent.diagnose(short, play[3:5])
    assert {step.sensor for step in report.evidence.worst} <= {"horizontal", "vertical"}
    json.dumps(report.to_dict(), allow_nan=False)


# ---- discrete actions, and images ----


def test_discrete_actions_are_told_apart(quick):
    env = toy.DiscretePointMass()
    agent = AIMEAgent(env, seed=0, world_model=small.world_model(toy.DiscretePointMass))
    report = agent.diagnose(toy.demonstrations(env, 6), toy.play_data(env, 15, seed=77))
    assert [action.identified for action in report.actions] == [True] * 5
    assert report.actions[0].flat_spread == pytest.approx(np.sqrt(0.2 * 0.8))
    assert report.play_error < 0.5
    assert report.disagreement < 1


@pytest.mark.parametrize("make", [toy.DiscretePixelPointMass, toy.MixedPointMass])
def test_images(make, quick):
    env, play, demos = toy.task(make)
    agent = tiny(env).pretrain(play[:3], progress_bar=False)
    report = agent.diagnose(demos[:2], play[3:5])
    assert {step.sensor for step in report.evidence.worst} <= {"observation", "camera", "position[0]", "position[1]"}
    json.dumps(report.to_dict(), allow_nan=False)


def test_probabilities_of_discrete_actions_sum_to_one():
    env, play, _ = toy.task(toy.DiscretePointMass)
    agent = tiny(env).pretrain(play[:3], progress_bar=False)
    dataset = TrajectoryDataset(play[:2], agent.action_encoding)
    evidence = record_evidence(agent.world_model, dataset, lambda rows, _: RecordedActions(dataset.prev_actions[rows]))
    _, means, stds = action_posterior(agent.world_model, candidate_actions(5, True, dataset.device), dataset, evidence)
    torch.testing.assert_close(means.sum(-1), torch.ones(len(means)))
    torch.testing.assert_close(stds.square(), means * (1 - means), atol=1e-5, rtol=1e-3)
