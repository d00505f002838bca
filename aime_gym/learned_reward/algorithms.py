"""SB3's algorithms as what earns a learned reward: made from names, seen through one wrapper."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from aime_gym.data import ActionEncoding
from aime_gym.learned_reward.vec_envs import encoded_spaces
from aime_gym.models.flat_layout import FlatLayout
from aime_gym.models.pixel_policies import FlatFeaturesExtractor, PixelSACPolicy
from aime_gym.types import Array


class _SAC(SAC):
    """SB3's, which acts by its policy from the first step on.

    An untrained policy is nearly uniform, and a trained one that goes on with an empty replay buffer would otherwise
    fill it with noise.
    """

    def _sample_action(self, learning_starts: int, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        return super()._sample_action(0, *args, **kwargs)


Algorithm: TypeAlias = OnPolicyAlgorithm | OffPolicyAlgorithm

#: Algorithms by name, and what differs here from SB3's defaults.
ALGORITHMS: Mapping[str, tuple[type[Algorithm], Mapping[str, Any]]] = {
    "ppo": (PPO, {"gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 3e-4, "batch_size": 64, "n_epochs": 10}),
    "trpo": (TRPO, {"gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 1e-3, "batch_size": 128}),
    "sac": (_SAC, {"gamma": 0.99, "learning_rate": 3e-4, "buffer_size": 300_000, "learning_starts": 1000}),
}
#: Environment steps of a round, all copies together.
_ROUND = 2048
#: Of an off-policy algorithm: between two bouts of updates, and between two rounds of whoever learns the reward.
_BOUT, _OFF_POLICY_ROUND = 64, 512
#: Most memory of a replay buffer, unless its size is given.
_REPLAY_BYTES = 4_000_000_000
#: Of a Gaussian policy at first: SB3's spread of 1 would mostly hit the bounds of actions in [-1, 1].
_LOG_STD = -0.7
#: Arguments of SB3's constructors that the agent has itself, or that make no sense here.
_OWN = {"self", "policy", "env", "policy_kwargs", "stats_window_size", "tensorboard_log", "verbose", "seed", "device"}
_OWN |= {"_init_setup_model", "rollout_buffer_class", "rollout_buffer_kwargs", "use_sde", "sde_sample_freq"}
_OWN |= {"replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "action_noise", "use_sde_at_warmup"}


def algorithm_options(name: str) -> list[str]:
    """What ``algorithm_kwargs`` may set."""
    kind = ALGORITHMS[name][0]
    own = _OWN | {"n_steps"} if issubclass(kind, OffPolicyAlgorithm) else _OWN  # of its replay buffer, which is ours
    return sorted(set(inspect.signature(kind.__init__).parameters) - own)


def make_algorithm(
    name: str,
    options: Mapping[str, Any],
    layout: FlatLayout,
    encoding: ActionEncoding,
    *,
    n_envs: int,
    policy_kwargs: Mapping[str, Any],
    image_encoder: str,
    device: torch.device,
    stats_window_size: int = 100,
) -> Algorithm:
    """Make an algorithm without an environment, with fresh weights from PyTorch's global generator.

    :param name: ``ppo``, ``trpo`` or ``sac``.
    :param options: of its constructor, over the defaults.
    :param layout: of the observations.
    :param encoding: of the actions.
    :param policy_kwargs: ``hidden`` and ``layers``; SB3's two layers of 64, of 256 for ``sac``, unless given.
    :param image_encoder: kind of the encoder of images; see :mod:`aime_gym.models.images`.
    :raises ValueError: an algorithm that knows no such actions, or options that it refuses.
    """
    kind, defaults = ALGORITHMS[name]
    observation_space, action_space = encoded_spaces(layout, encoding)
    off_policy = issubclass(kind, OffPolicyAlgorithm)
    if off_policy and not isinstance(action_space, spaces.Box):
        others = " or ".join(other for other, (known, _) in ALGORITHMS.items() if issubclass(known, OnPolicyAlgorithm))
        raise ValueError(f"algorithm: expected {others} for Discrete actions, got {name!r}, which needs a Box")
    if off_policy:
        rhythm: dict[str, Any] = {"train_freq": max(1, _BOUT // n_envs), "gradient_steps": -1}
        fits = _REPLAY_BYTES // (2 * layout.size * layout.dtype.itemsize)
        rhythm |= {"target_entropy": -float(np.prod(action_space.shape))}
        options = {**rhythm, **defaults, "buffer_size": min(defaults["buffer_size"], fits), **options}
    else:
        options = {"n_steps": max(2, _ROUND // n_envs), **defaults, **options}
    width, layers = policy_kwargs.get("hidden", 256 if off_policy else 64), policy_kwargs.get("layers", 2)
    constructor: Any = kind
    networks: dict[str, Any] = {"net_arch": [width] * layers} | ({} if off_policy else {"log_std_init": _LOG_STD})
    if layout.images:
        features = {"layout": layout, "encoder": image_encoder}
        networks |= {"features_extractor_class": FlatFeaturesExtractor, "features_extractor_kwargs": features}
    try:
        algorithm: Algorithm = constructor(
            PixelSACPolicy if layout.images and off_policy else "MlpPolicy",
            None,
            policy_kwargs=networks,
            stats_window_size=stats_window_size,
            device=device,
            _init_setup_model=False,
            **options,
        )
        algorithm.observation_space, algorithm.action_space, algorithm.n_envs = observation_space, action_space, n_envs
        algorithm._setup_model()
    except (TypeError, ValueError, AssertionError) as error:
        name_of_kind = kind.__name__.removeprefix("_")
        raise ValueError(f"algorithm_kwargs: expected what {name_of_kind} accepts, got {options} ({error})") from error
    return algorithm


def share_weights(source: Algorithm, target: Algorithm) -> None:
    """Let one algorithm go on with the very objects that another one has learnt."""
    target.policy = source.policy
    if isinstance(source, SAC) and isinstance(target, SAC):
        target._create_aliases()
        target.log_ent_coef, target.ent_coef_optimizer = source.log_ent_coef, source.ent_coef_optimizer


def optimizer_state(algorithm: Algorithm) -> dict[str, Any]:
    """What an algorithm goes on from, beside its policy: moments, and the weight of the entropy."""
    moments = {
        name: {str(index): values for index, values in optimizer.state_dict()["state"].items()}
        for name, optimizer in _optimizers(algorithm).items()
    }
    if isinstance(algorithm, SAC) and algorithm.log_ent_coef is not None:
        return {"moments": moments, "log_ent_coef": algorithm.log_ent_coef.detach()}
    return {"moments": moments}


def load_optimizer_state(algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Go on from there."""
    for name, optimizer in _optimizers(algorithm).items():
        moments = {int(index): values for index, values in state["moments"][name].items()}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    if isinstance(algorithm, SAC) and algorithm.log_ent_coef is not None:
        with torch.no_grad():
            algorithm.log_ent_coef.copy_(state["log_ent_coef"])


def _optimizers(algorithm: Algorithm) -> dict[str, torch.optim.Optimizer]:
    if not isinstance(algorithm, SAC):
        return {"policy": algorithm.policy.optimizer}
    found = {"actor": algorithm.actor.optimizer, "critic": algorithm.critic.optimizer}
    return found if algorithm.ent_coef_optimizer is None else found | {"ent_coef": algorithm.ent_coef_optimizer}


def round_steps(algorithm: Algorithm) -> int:
    """Environment steps that whoever learns the reward waits for: at least those of a rollout."""
    return _OFF_POLICY_ROUND if isinstance(algorithm, OffPolicyAlgorithm) else 1


def act(policy: BasePolicy, observations: Tensor, generator: torch.Generator | None) -> Tensor:
    """Encoded actions for encoded observations (N, D): in [-1, 1], or scores whose greatest is meant; (N, A).

    :param generator: samples; ``None`` takes the most likely action.
    """
    if isinstance(policy, SACPolicy):
        mean, log_std, _ = policy.actor.get_action_dist_params(observations)
        return mean.tanh() if generator is None else _noisy(mean, log_std.exp(), generator).tanh()
    distribution: Any = policy.get_distribution(observations)  # type: ignore[operator]
    if isinstance(distribution, CategoricalDistribution):
        logits: Tensor = distribution.distribution.logits
        if generator is None:
            return logits
        uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
        return logits - (-uniform.log()).log()  # the argmax of logits plus Gumbel noise is a sample
    actions: Tensor = distribution.distribution.mean
    if generator is not None:
        actions = _noisy(actions, distribution.distribution.stddev, generator)
    return actions.clamp(-1, 1)


def _noisy(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)
