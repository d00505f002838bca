"""SB3's algorithms that maximise a learned reward: made from their names, and alike in how they act and are kept."""

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
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from aime_gym.data import ActionEncoding
from aime_gym.learned_reward.frame_stack import observation_bytes
from aime_gym.learned_reward.relabelling_buffer import RelabellingReplayBuffer
from aime_gym.learned_reward.vec_envs import encoded_action_space
from aime_gym.models.features_extractor import CriticEncoderSACPolicy, SensorsExtractor
from aime_gym.models.standardizer import RunningStandardizer
from aime_gym.training.checkpoint import snapshot
from aime_gym.types import Array, is_image


class _SAC(SAC):
    """SB3's SAC, which acts by its policy from the first step on.

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
#: Environment steps of an on-policy rollout, all copies together.
_ROLLOUT_STEPS = 2048
#: Environment steps between two trainings of an off-policy algorithm, all copies together.
_OFF_POLICY_TRAIN_STEPS = 64
#: Environment steps between two updates of the reward, under an off-policy algorithm.
_OFF_POLICY_REWARD_STEPS = 512
#: Most memory of a replay buffer, unless its size is given.
_REPLAY_BYTES = 4_000_000_000
#: Initial log standard deviation of a Gaussian policy: SB3's 0 would mostly hit the bounds of actions in [-1, 1].
_LOG_STD = -0.7
#: Arguments of SB3's constructors that the agent has itself, or that make no sense here.
_OWN = {"self", "policy", "env", "policy_kwargs", "stats_window_size", "tensorboard_log", "verbose", "seed", "device"}
_OWN |= {"_init_setup_model", "rollout_buffer_class", "rollout_buffer_kwargs", "use_sde", "sde_sample_freq"}
_OWN |= {"replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "action_noise", "use_sde_at_warmup"}


def algorithm_options(name: str) -> list[str]:
    """Return the names that ``algorithm_kwargs`` may set."""
    algorithm_class = ALGORITHMS[name][0]
    # An off-policy n_steps is an option of SB3's own replay buffer.
    own = _OWN | {"n_steps"} if issubclass(algorithm_class, OffPolicyAlgorithm) else _OWN
    return sorted(set(inspect.signature(algorithm_class.__init__).parameters) - own)


def make_algorithm(
    name: str,
    options: Mapping[str, Any],
    observation_space: spaces.Dict,
    actions: ActionEncoding,
    *,
    n_envs: int,
    policy_kwargs: Mapping[str, Any],
    standardizer: RunningStandardizer,
    image_encoder: str,
    replay_buffer_kwargs: Mapping[str, Any],
    device: torch.device,
    stats_window_size: int = 100,
) -> Algorithm:
    """Make an algorithm without an environment, with fresh weights from PyTorch's global generator.

    :param name: ``ppo``, ``trpo`` or ``sac``.
    :param options: arguments of its constructor, over the defaults.
    :param observation_space: vectors (D,) and images (C, H, W).
    :param policy_kwargs: ``hidden`` and ``layers``; SB3's two layers of 64, of 256 for ``sac``, unless given.
    :param standardizer: statistics of all vectors, which the policy shares.
    :param image_encoder: kind of the encoder of images; see [`aime_gym.models.images`][].
    :param replay_buffer_kwargs: arguments of
        [`RelabellingReplayBuffer`][], for ``sac``.
    :raises ValueError: an algorithm that knows no such actions, or options that it refuses.
    """
    algorithm_class, defaults = ALGORITHMS[name]
    action_space = encoded_action_space(actions)
    off_policy = issubclass(algorithm_class, OffPolicyAlgorithm)
    if off_policy and not isinstance(action_space, spaces.Box):
        others = " or ".join(other for other, (known, _) in ALGORITHMS.items() if issubclass(known, OnPolicyAlgorithm))
        raise ValueError(f"algorithm: expected {others} for Discrete actions, got {name!r}, which needs a Box")
    policy: str | type[BasePolicy] = "MultiInputPolicy"
    networks: dict[str, Any] = {
        "net_arch": [policy_kwargs.get("hidden", 256 if off_policy else 64)] * policy_kwargs.get("layers", 2),
        "features_extractor_class": SensorsExtractor,
        "features_extractor_kwargs": {"standardizer": standardizer, "image_encoder": image_encoder},
    }
    buffer: dict[str, Any] = {}
    if off_policy:
        if any(is_image(part.shape or ()) for part in observation_space.values()):
            policy = CriticEncoderSACPolicy
        fitting_size = _REPLAY_BYTES // (2 * observation_bytes(observation_space))
        defaults = {
            "train_freq": max(1, _OFF_POLICY_TRAIN_STEPS // n_envs),
            "gradient_steps": -1,
            "target_entropy": -float(actions.size),
            **defaults,
            "buffer_size": min(defaults["buffer_size"], fitting_size),
        }
        buffer = {"replay_buffer_class": RelabellingReplayBuffer, "replay_buffer_kwargs": dict(replay_buffer_kwargs)}
    else:
        defaults = {"n_steps": max(2, _ROLLOUT_STEPS // n_envs), **defaults}
        networks["log_std_init"] = _LOG_STD
    options = {**defaults, **options}
    constructor: Any = algorithm_class
    try:
        algorithm: Algorithm = constructor(
            policy,
            None,
            policy_kwargs=networks,
            stats_window_size=stats_window_size,
            device=device,
            _init_setup_model=False,
            **buffer,
            **options,
        )
        algorithm.observation_space, algorithm.action_space, algorithm.n_envs = observation_space, action_space, n_envs
        algorithm._setup_model()
    except (TypeError, ValueError, AssertionError) as error:
        class_name = algorithm_class.__name__.removeprefix("_")
        raise ValueError(f"algorithm_kwargs: expected what {class_name} accepts, got {options} ({error})") from error
    return algorithm


def share_weights(source: Algorithm, target: Algorithm) -> None:
    """Let ``target`` train the networks of ``source``, the very same objects."""
    target.policy = source.policy
    if isinstance(source, SAC) and isinstance(target, SAC):
        target._create_aliases()
        target.log_ent_coef, target.ent_coef_optimizer = source.log_ent_coef, source.ent_coef_optimizer


def reset_env(algorithm: Algorithm, seed: int) -> None:
    """Reset an algorithm's environment with a seed, as ``learn`` does before its first rollout."""
    env = algorithm.env
    assert env is not None
    env.seed(seed)
    algorithm._last_obs = env.reset()  # type: ignore[assignment]
    algorithm._last_episode_starts = np.ones(env.num_envs, bool)
    normalizer = algorithm.get_vec_normalize_env()
    if normalizer is not None:
        algorithm._last_original_obs = normalizer.get_original_obs()


def optimizer_state(algorithm: Algorithm) -> dict[str, Any]:
    """Return what an algorithm goes on from, beside its policy: moments, and the weight of the entropy."""
    moments = {
        name: {str(index): values for index, values in optimizer.state_dict()["state"].items()}
        for name, optimizer in _optimizers(algorithm).items()
    }
    if isinstance(algorithm, SAC) and algorithm.log_ent_coef is not None:
        return {"moments": moments, "log_ent_coef": algorithm.log_ent_coef.detach()}
    return {"moments": moments}


def load_optimizer_state(algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Load what [`optimizer_state`][] returned."""
    for name, optimizer in _optimizers(algorithm).items():
        # Copies, which PyTorch does not make: the next step writes to them, and a checkpoint may still hold the state.
        moments = {int(index): snapshot(values) for index, values in state["moments"][name].items()}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    if isinstance(algorithm, SAC) and algorithm.log_ent_coef is not None:
        with torch.no_grad():
            algorithm.log_ent_coef.copy_(state["log_ent_coef"])


def _optimizers(algorithm: Algorithm) -> dict[str, torch.optim.Optimizer]:
    if not isinstance(algorithm, SAC):
        return {"policy": algorithm.policy.optimizer}
    found = {"actor": algorithm.actor.optimizer, "critic": algorithm.critic.optimizer}
    return found if algorithm.ent_coef_optimizer is None else found | {"ent_coef": algorithm.ent_coef_optimizer}


def steps_per_reward_update(algorithm: Algorithm) -> int:
    """Return the environment steps that an update of the reward waits for; those of a rollout at least."""
    return _OFF_POLICY_REWARD_STEPS if isinstance(algorithm, OffPolicyAlgorithm) else 1


def act(policy: BasePolicy, observation: TensorDict, generator: torch.Generator | None) -> Tensor:
    """Return encoded actions (N, A) for observations (N, ...): in [-1, 1], or scores whose greatest is meant.

    :param generator: randomness of a sample; ``None`` takes the most likely action.
    """
    if isinstance(policy, SACPolicy):
        mean, log_std, _ = policy.actor.get_action_dist_params(observation)
        return mean.tanh() if generator is None else _add_noise(mean, log_std.exp(), generator).tanh()
    distribution: Any = policy.get_distribution(observation)  # type: ignore[operator]
    if isinstance(distribution, CategoricalDistribution):
        logits: Tensor = distribution.distribution.logits
        if generator is None:
            return logits
        uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
        return logits - (-uniform.log()).log()  # the argmax of logits plus Gumbel noise is a sample
    actions: Tensor = distribution.distribution.mean
    if generator is not None:
        actions = _add_noise(actions, distribution.distribution.stddev, generator)
    return actions.clamp(-1, 1)


def _add_noise(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)
