"""What stands between an agent and its demonstrations, measured from data alone, before it is deployed.

Zero-shot imitation meets two barriers (Zhang et al. 2024, arXiv 2404.18896). The embodiment knowledge barrier: the
world model has not seen what the task needs, so the actions that it infers are wrong. The demonstration knowledge
barrier: a few demonstrations do not cover the states that the policy will meet. More play lifts the first, more
demonstrations the second, and neither helps against the other. :func:`diagnose` measures both; what it found, and what
that means, is in :mod:`~aime_gym.analysis.diagnosis_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor

from aime_gym.analysis.diagnosis_report import ActionKnowledge, Coverage, Diagnosis, EvidenceSummary, Step
from aime_gym.data import TrajectoryDataset
from aime_gym.model_based.filtering import FilteredLatents, RowSource, filtered_batches, standardized
from aime_gym.model_based.latent_regression import clone_actions
from aime_gym.models.policies import LatentPolicy
from aime_gym.models.rssm import Latents, RecordedActions, State
from aime_gym.models.world_model import WorldModel, over_sensors
from aime_gym.training.loop import TrainingLoop
from aime_gym.types import Array

#: In each data set the actions of so many steps, evenly spread over it, are varied.
_STEPS = 256
#: Values that an action takes there, and the records whose evidence answers: what an action does may show in positions
#: only after a step or two.
_GRID, _RECORDS = 17, 4
#: Parts of the demonstrations, of which one at a time is held out, and updates of each policy cloned from the others.
_FOLDS, _CLONE_UPDATES = 5, 200
#: Records from the start of a trajectory that make up a quarter of a minibatch there, as in imitation.
_START_RECORDS, _START_FRACTION = 32, 0.25
#: How many of the worst explained steps are named, of as many trajectories as there are, and how far apart.
_WORST, _APART = 5, 5


class Explanation(NamedTuple):
    """How a world model explains a data set under some actions; one row for each record."""

    features: Tensor  # (N, H + S)
    prev_actions: Tensor  # (N, A)
    elbo: Tensor  # (N,), nats; over a trajectory their sum is its ELBO, at the posterior's mean
    surprise: Tensor  # (N, D), distance of each entry from what the prior predicts, in units of play's spread


@dataclass
class _UpdateCounter:
    """Counts the updates of policies that are cloned for a measurement, in place of the agent."""

    num_updates: int = 0
    num_timesteps: int = 0


def diagnose(
    model: WorldModel,
    demos: TrajectoryDataset,
    play: TrajectoryDataset,
    *,
    inferred: Tensor,
    inverse: Callable[[TrajectoryDataset], RowSource],
    make_policy: Callable[[], LatentPolicy],
    play_held_out: bool,
) -> Diagnosis:
    """Measure what the world model knows of the demonstrations, and how well these cover one another.

    Deterministic: filters take the posterior's mean, and policies are cloned from a seed of their own. Nothing that is
    passed in is changed.

    :param demos: with their true actions where they are known; these go into figures of their own.
    :param play: with actions; in the best case the world model has not seen it.
    :param inferred: previous actions (N, A) that the agent believes in the demonstrations.
    :param inverse: makes the source of the inverse model's actions for a data set.
    :param make_policy: a policy with fresh weights from PyTorch's global generator, to be cloned.
    :param play_held_out: whether the world model was trained on other play, as far as that is known.
    """
    on_play = explain(model, play, _recorded(play.prev_actions))
    inferred_on_play = explain(model, play, inverse(play))
    on_demos = explain(model, demos, _recorded(inferred))
    by_inverse = explain(model, demos, inverse(demos))
    truly = None if demos.prev_actions is None else explain(model, demos, _recorded(demos.prev_actions))
    actions = _action_knowledge(model, demos, play, on_demos, on_play, inferred_on_play, by_inverse)
    known = torch.tensor([action.identified for action in actions], device=demos.device)
    return Diagnosis(
        evidence=EvidenceSummary(
            play=_reached(play, on_play.elbo),
            play_inferred=_reached(play, inferred_on_play.elbo),
            demos=_by_trajectory(demos, on_demos.elbo),
            demos_true=None if truly is None else _by_trajectory(demos, truly.elbo),
            worst=_worst_steps(model, demos, on_demos, on_play),
        ),
        actions=actions,
        coverage=_coverage(demos, FilteredLatents(by_inverse.features, by_inverse.prev_actions), known, make_policy),
        play_episodes=len(play.counts),
        play_held_out=play_held_out,
    )


# EvidenceSummary


@torch.no_grad()
def explain(model: WorldModel, dataset: TrajectoryDataset, source: RowSource) -> Explanation:
    """Filter all trajectories as acting does, with the posterior's mean, and score each record.

    :param source: where the actions come from.
    """
    features = next(model.parameters()).new_zeros(len(dataset), model.feature_size)
    prev_actions = features.new_zeros(len(dataset), model.action_size)
    elbo = features.new_zeros(len(dataset))
    surprise = features.new_zeros(len(dataset), sum(model.vectors.values()))
    for rows, valid, latents in filtered_batches(model, dataset, source):
        seen = standardized(model, dataset, rows)
        predicted = model.decode(torch.cat([latents.states.deter, latents.prior.mean], dim=-1))
        distances = torch.cat([(predicted[name].mean - seen[name]).abs() for name in model.sensors], dim=-1)
        chosen = rows[valid]
        features[chosen], prev_actions[chosen] = latents.states.feature[valid], latents.prev_actions[valid]
        elbo[chosen], surprise[chosen] = step_evidence(model, seen, latents)[valid], distances[valid]
    return Explanation(features, prev_actions, elbo, surprise)


def step_evidence(model: WorldModel, targets: dict[str, Tensor], latents: Latents) -> Tensor:
    """The ELBO of each record, (T, B) in nats: Eq. 1 of AIME, before it is summed over time.

    :param targets: standardised sensors, (T, B, D) each.
    """
    likelihood = over_sensors(model.score(latents.states.feature, targets), "log_likelihood")
    return likelihood - latents.posterior.kl(latents.prior).sum(-1)


def _worst_steps(
    model: WorldModel, demos: TrajectoryDataset, on_demos: Explanation, on_play: Explanation
) -> tuple[Step, ...]:
    """The steps of least evidence, and the entry there that the model predicts worst, against what is usual in play.

    An entry that hardly moves in play is still allowed a hundredth of play's spread.
    """
    names = [f"{name}[{i}]" if size > 1 else name for name, size in model.vectors.items() for i in range(size)]
    usual = on_play.surprise.square().mean(0).sqrt().clamp_min(0.01)
    ratios = on_demos.surprise / usual
    steps, found = demos.steps(), list[Step]()
    of_each = -(-_WORST // len(demos.counts))
    trajectories = torch.arange(len(demos.counts)).repeat_interleave(demos.counts)
    for row in on_demos.elbo.masked_fill(demos.first_rows(), torch.inf).argsort().tolist():
        trajectory, step = int(trajectories[row]), int(steps[row])
        if step == 0 or len(found) == _WORST:
            break
        same = [other.step for other in found if other.trajectory == trajectory]
        if len(same) < of_each and all(abs(other - step) > _APART for other in same):
            ratio, entry = ratios[row].max(0)
            found.append(Step(trajectory, step, float(on_demos.elbo[row]), names[int(entry)], float(ratio)))
    return tuple(found)


# Actions


def _action_knowledge(
    model: WorldModel,
    demos: TrajectoryDataset,
    play: TrajectoryDataset,
    on_demos: Explanation,
    on_play: Explanation,
    inferred_on_play: Explanation,
    by_inverse: Explanation,
) -> tuple[ActionKnowledge, ...]:
    demo_rows, demo_means, demo_spreads = action_posterior(model, demos, on_demos)
    play_rows, play_means, play_spreads = action_posterior(model, play, on_play)

    def rms(errors: Tensor) -> list[float]:
        return [float(value) for value in errors.square().mean(0).sqrt()]

    def against_true(inferred: Tensor, dataset: TrajectoryDataset) -> list[tuple[float, float] | None]:
        """Root mean square errors of inferred actions, and the spread of the true ones."""
        if dataset.prev_actions is None:
            return [None] * model.action_size
        true = _reached_rows(dataset, dataset.prev_actions)
        errors, spread = rms(_reached_rows(dataset, inferred) - true), rms(true - true.mean(0))
        return list(zip(errors, spread, strict=True))

    return tuple(
        ActionKnowledge(f"action[{i}]" if model.action_size > 1 else "action", *values)
        for i, values in enumerate(
            zip(
                [float(value) for value in play_spreads.mean(0)],
                [float(value) for value in demo_spreads.mean(0)],
                rms(play_means - inferred_on_play.prev_actions[play_rows]),
                rms(demo_means - by_inverse.prev_actions[demo_rows]),
                against_true(inferred_on_play.prev_actions, play),
                against_true(on_demos.prev_actions, demos),
                strict=True,
            )
        )
    )


@torch.no_grad()
def action_posterior(
    model: WorldModel, dataset: TrajectoryDataset, explained: Explanation
) -> tuple[Tensor, Tensor, Tensor]:
    """What the evidence says of each action where the others are as explained: p(a_i | o), flat a priori on [-1, 1].

    The evidence of the next records is evaluated with the action at each value of a grid. A posterior as wide as the
    prior (std 0.6) knows nothing; a narrow one leaves no choice.

    :return: rows (M,) whose ``prev_actions`` were varied; mean and std of the posterior of each action, (M, A).
    """
    records = min(_RECORDS, int(dataset.counts.max()) - 1)
    last = (dataset.starts + dataset.counts - records).repeat_interleave(dataset.counts).to(dataset.device)
    rows = torch.arange(len(dataset), device=dataset.device)
    rows = rows[(dataset.steps() > 0) & (rows <= last)]
    rows = rows[torch.linspace(0, len(rows) - 1, min(_STEPS, len(rows))).round().long().to(rows.device)]

    grid = torch.linspace(-1, 1, _GRID, device=dataset.device)
    window = (rows + torch.arange(records, device=rows.device)[:, None]).repeat(1, _GRID)  # (K, G * M)
    targets = standardized(model, dataset, window)
    embeddings = model.embed(targets)
    before = State(*explained.features[window[0] - 1].split([model.config.deter, model.config.stoch], dim=-1))
    noise = embeddings.new_zeros(*window.shape, model.config.stoch)
    means, stds = [], []
    for index in range(model.action_size):
        actions = explained.prev_actions[window]
        actions[0, :, index] = grid.repeat_interleave(len(rows))
        latents = model.rssm(embeddings, RecordedActions(actions), noise, before)
        weights = step_evidence(model, targets, latents).sum(0).view(_GRID, len(rows)).softmax(0)
        means.append((weights * grid[:, None]).sum(0))
        stds.append((weights * (grid[:, None] - means[-1]).square()).sum(0).sqrt())
    return rows, torch.stack(means, dim=-1), torch.stack(stds, dim=-1)


# Coverage


def _coverage(
    demos: TrajectoryDataset, filtered: FilteredLatents, known: Tensor, make_policy: Callable[[], LatentPolicy]
) -> Coverage:
    """How well a policy that is cloned from some demonstrations, in the latent space, foretells the others' actions.

    The actions are the inverse model's, which sees what comes next: those of a policy that has imitated all of the
    demonstrations would tell of the held-out ones too.

    :param known: (A,) bool, actions that count: what the evidence does not identify, nobody can foretell.
    """
    count = len(demos.counts)
    known = known if known.any() else torch.ones_like(known)
    features, actions = demos.per_trajectory(filtered.features), demos.per_trajectory(filtered.prev_actions)
    spread = _reached_rows(demos, filtered.prev_actions)[:, known].var(0).mean()
    folds = min(count, _FOLDS)
    held_out = [list(range(fold, count, folds)) for fold in range(folds)] if count > 1 else []
    most = count - max(map(len, held_out), default=count)
    sizes = sorted({max(1, most // 4), max(1, most // 2), most}) if most else []
    by_size: list[float] = []
    by_demo = [0.0] * len(held_out and demos.counts)
    own: list[float] = []

    def error(policy: LatentPolicy, demo: int) -> float:
        with torch.no_grad():
            errors = policy(features[demo][:-1]).mode - actions[demo][1:]
        return float(errors[:, known].square().mean() / spread)

    for size in sizes:
        errors: list[float] = []
        for outside in held_out:
            others = [demo for demo in range(count) if demo not in outside]
            chosen = [others[i] for i in torch.linspace(0, len(others) - 1, size).round().long().tolist()]
            policy = _cloned(demos, features, actions, chosen, make_policy)
            for demo in outside:
                errors.append(error(policy, demo))
                by_demo[demo] = errors[-1]  # of the largest size, which comes last
            if size == most:
                own += [error(policy, demo) for demo in chosen]
        by_size.append(sum(errors) / len(errors))
    return Coverage(count, tuple(sizes), tuple(by_size), tuple(by_demo), sum(own) / len(own) if own else None)


def _cloned(
    demos: TrajectoryDataset,
    features: Sequence[Tensor],
    actions: Sequence[Tensor],
    chosen: Sequence[int],
    make_policy: Callable[[], LatentPolicy],
) -> LatentPolicy:
    """A policy that was cloned from some of the demonstrations; always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        policy = make_policy().to(demos.device)
    completed = clone_actions(
        policy,
        TrajectoryDataset([demos.trajectories[demo] for demo in chosen], None, demos.device),
        FilteredLatents(*(torch.cat([values[demo] for demo in chosen]) for values in (features, actions))),
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
    return lambda rows: RecordedActions(prev_actions[rows])


def _reached_rows(dataset: TrajectoryDataset, values: Tensor) -> Tensor:
    """Of the records that an action led to."""
    return values[~dataset.first_rows()]


def _reached(dataset: TrajectoryDataset, values: Tensor) -> Array:
    return _reached_rows(dataset, values).cpu().numpy()


def _by_trajectory(dataset: TrajectoryDataset, values: Tensor) -> tuple[Array, ...]:
    """Of the records that an action led to, (T,) for each trajectory."""
    return tuple(part[1:].cpu().numpy() for part in dataset.per_trajectory(values))
