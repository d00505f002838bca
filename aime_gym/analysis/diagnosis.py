"""Diagnosis of the two barriers to zero-shot imitation, measured from data alone, before an agent is deployed.

The barriers are those of Zhang et al. 2024 (arXiv 2404.18896). The embodiment knowledge barrier: the play data of the
world model lack what the task needs, so that the actions it infers are wrong. The demonstration knowledge barrier: a
few demonstrations do not cover the states that the policy will visit. More play lifts the first, more demonstrations
the second, and neither helps against the other. [`diagnose`][] measures both;
[`diagnosis_report`][] holds the figures and their interpretation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor

from aime_gym.analysis.diagnosis_report import ActionKnowledge, Coverage, Diagnosis, EvidenceSummary, WorstStep
from aime_gym.data import TrajectoryDataset
from aime_gym.data.coverage import sample_records, share_outside
from aime_gym.model_based.filtering import FilteredLatents, RowSource, filtered_batches, standardized
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.models.distributions import OneHotCategorical
from aime_gym.models.images import as_floats
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import Latents, RecordedActions, State
from aime_gym.models.world_model import WorldModel, sum_over_sensors
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Array, SensorShape, is_image

#: Steps of each dataset, evenly spread, whose action posteriors are evaluated; fewer of images.
_POSTERIOR_STEPS, _IMAGE_POSTERIOR_STEPS = 256, 64
#: Values of an action on the grid of its posterior.
_GRID_SIZE = 17
#: Records whose evidence makes up the posterior: the effect of an action may show in positions only after some steps.
_POSTERIOR_RECORDS = 4
#: Folds of the cross-validation over demonstrations.
_FOLDS = 5
#: Updates of each policy that is cloned for the cross-validation.
_CLONE_UPDATES = 200
#: Share of a minibatch from the first ``_START_RECORDS`` records of trajectories, as in imitation.
_START_FRACTION = 0.25
_START_RECORDS = 32
#: Number of worst steps to report, over all trajectories.
_WORST_STEPS = 5
#: Least distance between two of them in one trajectory, in steps.
_WORST_STEPS_APART = 5


class Candidates(NamedTuple):
    """Values that some entries of an action may have together."""

    entries: slice
    values: Tensor  # (G, entries)


class RecordEvidence(NamedTuple):
    """Evidence of each of the N records of a dataset under given actions."""

    features: Tensor  # (N, H + S)
    prev_actions: Tensor  # (N, A)
    elbo: Tensor  # (N,) in nats; summed over a trajectory, the trajectory's ELBO at the posterior's mode
    prediction_errors: Tensor  # (N, D), absolute errors of the prior's prediction, standardised; the mean of an image's


@dataclass
class _UpdateCounter:
    """Counter of the updates of policies that are cloned for a measurement, in place of the agent."""

    num_updates: int = 0
    num_timesteps: int = 0


def diagnose(
    model: WorldModel,
    demos: TrajectoryDataset,
    play: TrajectoryDataset,
    *,
    discrete: bool,
    inferred: Tensor,
    inverse: Callable[[TrajectoryDataset], RowSource],
    make_policy: Callable[[], LatentPolicy],
    play_held_out: bool,
) -> Diagnosis:
    """Measure the evidence of the demonstrations in the world model, and how well they cover one another.

    Deterministic: filters take the posterior's mode, and policies are cloned with a fixed seed. No argument is changed.

    :param model: trained world model.
    :param demos: demonstrations; figures that need their true actions are left out if these are unknown.
    :param play: play with actions, at best other play than the world model was trained on.
    :param discrete: whether actions are one-hot.
    :param inferred: previous actions (N, A) that the agent infers in the demonstrations.
    :param inverse: function that returns the source of the inverse model's actions for a dataset.
    :param make_policy: function that returns a policy to clone into, initialised by PyTorch's global generator.
    :param play_held_out: whether the world model was trained on other play, as far as that is known.
    """
    play_recorded = record_evidence(model, play, _recorded(play.prev_actions))
    play_inverse = record_evidence(model, play, inverse(play))
    demos_inferred = record_evidence(model, demos, _recorded(inferred))
    demos_inverse = record_evidence(model, demos, inverse(demos))
    demos_true = None
    if demos.prev_actions is not None:
        demos_true = record_evidence(model, demos, _recorded(demos.prev_actions))
    candidates = candidate_actions(model.action_size, discrete, demos.device)
    actions = _action_knowledge(
        model, candidates, demos, play, demos_inferred, demos_inverse, play_recorded, play_inverse
    )
    identified = torch.tensor([action.identified for action in actions], device=demos.device)
    filtered = FilteredLatents(demos_inverse.features, demos_inverse.prev_actions)
    return Diagnosis(
        evidence=EvidenceSummary(
            play=_after_first(play, play_recorded.elbo).cpu().numpy(),
            play_inferred=_after_first(play, play_inverse.elbo).cpu().numpy(),
            demos=_after_first_by_trajectory(demos, demos_inferred.elbo),
            demos_true=None if demos_true is None else _after_first_by_trajectory(demos, demos_true.elbo),
            worst=_worst_steps(model, demos, demos_inferred, play_recorded),
        ),
        actions=actions,
        coverage=_coverage(demos, filtered, identified, make_policy),
        outside_play=share_outside(sample_records(demos.trajectories), sample_records(play.trajectories)),
        play_episodes=len(play.counts),
        play_held_out=play_held_out,
    )


# Evidence


@torch.no_grad()
def record_evidence(model: WorldModel, dataset: TrajectoryDataset, source: RowSource) -> RecordEvidence:
    """Filter all trajectories with the posterior's mode, as ``predict`` does, and evaluate each record.

    :param model: world model.
    :param dataset: trajectories.
    :param source: source of the actions.
    """
    features = next(model.parameters()).new_zeros(len(dataset), model.feature_size)
    prev_actions = features.new_zeros(len(dataset), model.action_size)
    elbo = features.new_zeros(len(dataset))
    prediction_errors = features.new_zeros(len(dataset), len(_entry_names(model)))
    for rows, valid, latents, _ in filtered_batches(model, dataset, source):
        targets = standardized(model, dataset, rows)
        predicted = model.decode(torch.cat([latents.states.deter, latents.prior.mode], dim=-1))
        errors = torch.cat(
            [_entry_errors(predicted[name].mean, targets[name], shape) for name, shape in model.sensors.items()], dim=-1
        )
        valid_rows = rows[valid]
        features[valid_rows] = latents.states.feature[valid]
        prev_actions[valid_rows] = latents.prev_actions[valid]
        elbo[valid_rows] = elbo_per_record(model, targets, latents)[valid]
        prediction_errors[valid_rows] = errors[valid]
    return RecordEvidence(features, prev_actions, elbo, prediction_errors)


def _entry_errors(predicted: Tensor, target: Tensor, shape: SensorShape) -> Tensor:
    """Return the absolute errors (..., D) of a vector, or the mean one (..., 1) of an image's pixels."""
    if is_image(shape):
        return (predicted - as_floats(target, shape)).abs().flatten(-3).mean(-1, keepdim=True)
    return (predicted - target).abs()


def _entry_names(model: WorldModel) -> list[str]:
    sizes = {name: model.vectors.get(name, 1) for name in model.sensors}
    return [f"{name}[{i}]" if size > 1 else name for name, size in sizes.items() for i in range(size)]


def elbo_per_record(model: WorldModel, targets: dict[str, Tensor], latents: Latents) -> Tensor:
    """Return the ELBO of each record, (T, B) in nats: Eq. 1 of AIME, before it is summed over time.

    :param model: world model.
    :param targets: standardised sensors, (T, B, D) each.
    :param latents: latents of the pass over these records.
    """
    likelihood = sum_over_sensors(model.likelihood_terms(latents.states.feature, targets), "log_likelihood")
    return likelihood - latents.posterior.kl(latents.prior).sum(-1)


def _worst_steps(
    model: WorldModel, demos: TrajectoryDataset, demos_inferred: RecordEvidence, play_recorded: RecordEvidence
) -> tuple[WorstStep, ...]:
    """Return the steps of least evidence, each with the entry whose error is largest relative to that in play.

    The error in play counts as at least 0.01 (standardised), for entries that hardly move there.
    """
    names = _entry_names(model)
    usual = play_recorded.prediction_errors.square().mean(0).sqrt().clamp_min(0.01)
    ratios = demos_inferred.prediction_errors / usual
    steps = demos.steps()
    worst: list[WorstStep] = []
    per_trajectory = -(-_WORST_STEPS // len(demos.counts))
    trajectories = torch.arange(len(demos.counts)).repeat_interleave(demos.counts)
    for row in demos_inferred.elbo.masked_fill(demos.first_rows(), torch.inf).argsort().tolist():
        trajectory = int(trajectories[row])
        step = int(steps[row])
        if step == 0 or len(worst) == _WORST_STEPS:
            break
        same = [other.step for other in worst if other.trajectory == trajectory]
        if len(same) < per_trajectory and all(abs(other - step) > _WORST_STEPS_APART for other in same):
            ratio, entry = ratios[row].max(0)
            elbo = float(demos_inferred.elbo[row])
            worst.append(WorstStep(trajectory, step, elbo, names[int(entry)], float(ratio)))
    return tuple(worst)


# Actions


def candidate_actions(actions: int, discrete: bool, device: torch.device) -> list[Candidates]:
    """Return what an action may be: one-hot vectors, or a grid on [-1, 1] for each entry.

    :param actions: size A of an action.
    """
    if discrete:
        return [Candidates(slice(actions), torch.eye(actions, device=device))]
    grid = torch.linspace(-1, 1, _GRID_SIZE, device=device)[:, None]
    return [Candidates(slice(index, index + 1), grid) for index in range(actions)]


def _action_knowledge(
    model: WorldModel,
    candidates: list[Candidates],
    demos: TrajectoryDataset,
    play: TrajectoryDataset,
    demos_inferred: RecordEvidence,
    demos_inverse: RecordEvidence,
    play_recorded: RecordEvidence,
    play_inverse: RecordEvidence,
) -> tuple[ActionKnowledge, ...]:
    demo_rows, demo_means, demo_spreads = action_posterior(model, candidates, demos, demos_inferred)
    play_rows, play_means, play_spreads = action_posterior(model, candidates, play, play_recorded)

    def rms(errors: Tensor) -> list[float]:
        return [float(value) for value in errors.square().mean(0).sqrt()]

    def errors_and_spreads(inferred: Tensor, dataset: TrajectoryDataset) -> list[tuple[float, float] | None]:
        """Return root mean square errors of inferred actions, and the std of the true ones."""
        if dataset.prev_actions is None:
            return [None] * model.action_size
        true = _after_first(dataset, dataset.prev_actions)
        errors = rms(_after_first(dataset, inferred) - true)
        spreads = rms(true - true.mean(0))
        return list(zip(errors, spreads, strict=True))

    return tuple(
        ActionKnowledge(f"action[{i}]" if model.action_size > 1 else "action", *values)
        for i, values in enumerate(
            zip(
                [float(value) for value in play_spreads.mean(0)],
                [float(value) for value in demo_spreads.mean(0)],
                rms(play_means - play_inverse.prev_actions[play_rows]),
                rms(demo_means - demos_inverse.prev_actions[demo_rows]),
                errors_and_spreads(play_inverse.prev_actions, play),
                errors_and_spreads(demos_inferred.prev_actions, demos),
                [float(std) for part in candidates for std in part.values.std(0, correction=0)],
                strict=True,
            )
        )
    )


@torch.no_grad()
def action_posterior(
    model: WorldModel, candidates: list[Candidates], dataset: TrajectoryDataset, evidence: RecordEvidence
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the posterior p(a_i | o, a_{-i}) of each entry of an action, with a uniform prior over its candidates.

    The evidence of the next records is evaluated with each candidate. A posterior as wide as the prior (std 0.6 on
    [-1, 1]) does not identify the action; a narrow one does.

    :param model: world model.
    :param candidates: values of the entries, as [`candidate_actions`][] returns them.
    :param dataset: trajectories.
    :param evidence: evidence of these records, with the actions that stay fixed.
    :return: rows (M,) whose ``prev_actions`` were varied; mean and std of the posterior of each entry, (M, A).
    """
    records = min(_POSTERIOR_RECORDS, int(dataset.counts.max()) - 1)
    steps = _IMAGE_POSTERIOR_STEPS if model.frame_size else _POSTERIOR_STEPS
    last = (dataset.starts + dataset.counts - records).repeat_interleave(dataset.counts).to(dataset.device)
    rows = torch.arange(len(dataset), device=dataset.device)
    rows = rows[(dataset.steps() > 0) & (rows <= last)]
    rows = rows[torch.linspace(0, len(rows) - 1, min(steps, len(rows))).round().long().to(rows.device)]

    window = rows + torch.arange(records, device=rows.device)[:, None]  # (K, M)
    targets = standardized(model, dataset, window)
    embeddings = model.embed(targets)
    before = State(*evidence.features[window[0] - 1].split([model.config.deter, model.config.stoch], dim=-1))
    noise = embeddings.new_zeros(*window.shape, model.config.stoch)
    actions = evidence.prev_actions[window]

    def elbo(entries: slice, value: Tensor) -> Tensor:
        varied = actions.clone()
        varied[0, :, entries] = value
        latents = model.rssm(embeddings, RecordedActions(varied), noise, before)
        return elbo_per_record(model, targets, latents).sum(0)  # (M,)

    means, stds = [], []
    for entries, values in candidates:
        weights = torch.stack([elbo(entries, value) for value in values], dim=-1).softmax(-1)  # (M, G)
        means.append(weights @ values)
        stds.append((weights @ values.square() - means[-1].square()).clamp_min(0).sqrt())
    return rows, torch.cat(means, dim=-1), torch.cat(stds, dim=-1)


# Coverage


def _coverage(
    demos: TrajectoryDataset, filtered: FilteredLatents, identified: Tensor, make_policy: Callable[[], LatentPolicy]
) -> Coverage:
    """Cross-validate policies that are cloned from some demonstrations, in the latent space, on the others.

    The actions are the inverse model's, which are inferred from the next observation. Actions of a policy that has
    imitated all of the demonstrations would contain information about the held-out ones.

    :param demos: demonstrations.
    :param filtered: latents and inferred actions of the demonstrations.
    :param identified: mask (A,) of the actions that count: those that are not identified cannot be predicted.
    :param make_policy: function that returns a policy to clone into.
    """
    count = len(demos.counts)
    identified = identified if identified.any() else torch.ones_like(identified)
    features = demos.per_trajectory(filtered.features)
    actions = demos.per_trajectory(filtered.prev_actions)
    variance = _after_first(demos, filtered.prev_actions)[:, identified].var(0).mean()
    folds = min(count, _FOLDS)
    held_out = [list(range(fold, count, folds)) for fold in range(folds)] if count > 1 else []
    most = count - max(map(len, held_out), default=count)
    sizes = sorted({max(1, most // 4), max(1, most // 2), most}) if most else []
    by_size: list[float] = []
    by_demo = [0.0] * len(held_out and demos.counts)
    training_errors: list[float] = []

    def error(policy: LatentPolicy, demo: int) -> float:
        with torch.no_grad():
            choice = policy(features[demo][:-1])
            expected = choice.log_probs.exp() if isinstance(choice, OneHotCategorical) else choice.mode
            errors = expected - actions[demo][1:]
        return float(errors[:, identified].square().mean() / variance)

    for size in sizes:
        errors: list[float] = []
        for outside in held_out:
            others = [demo for demo in range(count) if demo not in outside]
            cloned = [others[i] for i in torch.linspace(0, len(others) - 1, size).round().long().tolist()]
            policy = _clone_policy(demos, features, actions, cloned, make_policy)
            for demo in outside:
                errors.append(error(policy, demo))
                by_demo[demo] = errors[-1]  # remains for the largest size, which is the last one
            if size == most:
                training_errors += [error(policy, demo) for demo in cloned]
        by_size.append(sum(errors) / len(errors))
    training_error = sum(training_errors) / len(training_errors) if training_errors else None
    return Coverage(count, tuple(sizes), tuple(by_size), tuple(by_demo), training_error)


def _clone_policy(
    demos: TrajectoryDataset,
    features: Sequence[Tensor],
    actions: Sequence[Tensor],
    numbers: Sequence[int],
    make_policy: Callable[[], LatentPolicy],
) -> LatentPolicy:
    """Clone a policy from the demonstrations of the given numbers, with a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        policy = make_policy().to(demos.device)
    completed = clone_actions(
        policy,
        TrajectoryDataset([demos.trajectories[demo] for demo in numbers], None, demos.device),
        FilteredLatents(*(torch.cat([values[demo] for demo in numbers]) for values in (features, actions))),
        TrainingLoop(_UpdateCounter(), Logger(None, []), torch.Generator().manual_seed(0), progress_bar=False),
        updates=_CLONE_UPDATES,
        start_fraction=_START_FRACTION,
        start_steps=_START_RECORDS,
    )
    if not completed:
        raise KeyboardInterrupt
    return policy


# Rows


def _recorded(prev_actions: Tensor | None) -> RowSource:
    assert prev_actions is not None
    return lambda rows, _: RecordedActions(prev_actions[rows])


def _after_first(dataset: TrajectoryDataset, values: Tensor) -> Tensor:
    """Return the values of all records but the first of each trajectory, to which no action led."""
    return values[~dataset.first_rows()]


def _after_first_by_trajectory(dataset: TrajectoryDataset, values: Tensor) -> tuple[Array, ...]:
    """Return the values of all records but the first, (T,) for each trajectory."""
    return tuple(part[1:].cpu().numpy() for part in dataset.per_trajectory(values))
