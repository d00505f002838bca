"""SB3's on-policy algorithms as the generators of adversarial imitation: made from names, seen through one wrapper."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from aime_gym.data import ActionEncoding
from aime_gym.types import Array, Observation

#: Algorithms by name, and what differs here from SB3's defaults.
GENERATORS: Mapping[str, tuple[type[OnPolicyAlgorithm], Mapping[str, Any]]] = {
    "ppo": (PPO, {"gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 3e-4, "batch_size": 64, "n_epochs": 10}),
    "trpo": (TRPO, {"gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 1e-3, "batch_size": 128}),
}
#: Environment steps of a round, all copies together.
_ROUND = 2048
#: Of a Gaussian policy at first: SB3's spread of 1 would mostly hit the bounds of actions in [-1, 1].
_LOG_STD = -0.7
#: Arguments of SB3's constructors that the agent has itself.
_OWN = {"self", "policy", "env", "policy_kwargs", "stats_window_size", "tensorboard_log", "verbose", "seed", "device"}
_OWN |= {"_init_setup_model", "rollout_buffer_class", "rollout_buffer_kwargs", "use_sde", "sde_sample_freq"}


def generator_options(name: str) -> list[str]:
    """What ``generator_kwargs`` may set."""
    return sorted(set(inspect.signature(GENERATORS[name][0].__init__).parameters) - _OWN)


def make_generator(
    name: str,
    options: Mapping[str, Any],
    observation_space: spaces.Box,
    action_space: spaces.Space,
    *,
    n_envs: int,
    policy_kwargs: Mapping[str, Any],
    device: torch.device,
    stats_window_size: int = 100,
) -> OnPolicyAlgorithm:
    """Make an algorithm without an environment, with fresh weights from PyTorch's global generator.

    :param name: ``ppo`` or ``trpo``.
    :param options: of its constructor, over the defaults.
    :param policy_kwargs: ``hidden`` and ``layers``; SB3's two layers of 64 unless given.
    :raises ValueError: options that the algorithm refuses.
    """
    kind, defaults = GENERATORS[name]
    options = {"n_steps": max(2, _ROUND // n_envs), **defaults, **options}
    width, layers = policy_kwargs.get("hidden", 64), policy_kwargs.get("layers", 2)
    constructor: Any = kind
    try:
        algorithm: OnPolicyAlgorithm = constructor(
            "MlpPolicy",
            None,
            policy_kwargs={"net_arch": [width] * layers, "log_std_init": _LOG_STD},
            stats_window_size=stats_window_size,
            device=device,
            _init_setup_model=False,
            **options,
        )
        algorithm.observation_space, algorithm.action_space, algorithm.n_envs = observation_space, action_space, n_envs
        algorithm._setup_model()
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"generator_kwargs: expected what {kind.__name__} accepts, got {options} ({error})") from error
    return algorithm


def act(policy: ActorCriticPolicy, observations: Tensor, generator: torch.Generator | None) -> Tensor:
    """Encoded actions for encoded observations (N, D): in [-1, 1], or scores whose greatest is meant; (N, A).

    :param generator: samples; ``None`` takes the most likely action.
    """
    distribution: Any = policy.get_distribution(observations)
    if isinstance(distribution, CategoricalDistribution):
        logits: Tensor = distribution.distribution.logits
        if generator is None:
            return logits
        uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
        return logits - (-uniform.log()).log()  # the argmax of logits plus Gumbel noise is a sample
    actions: Tensor = distribution.distribution.mean
    if generator is not None:
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        actions = actions + distribution.distribution.stddev * noise
    return actions.clamp(-1, 1)


class EncodedVecEnv(VecEnvWrapper):
    """An environment as the generator sees it: one vector of standardised sensors, actions in [-1, 1] or 0 ... n - 1.

    :param encode: observations (n, ...) of the environment -> (n, D).
    :param encoding: of its actions.
    """

    def __init__(
        self, venv: VecEnv, encode: Callable[[Observation], Array], size: int, encoding: ActionEncoding
    ) -> None:
        super().__init__(venv, *encoded_spaces(size, encoding))
        self.encode, self.encoding = encode, encoding

    def reset(self) -> VecEnvObs:
        return self.encode(self.venv.reset())  # type: ignore[arg-type]

    def step_async(self, actions: Array) -> None:
        if isinstance(self.encoding.space, spaces.Discrete):
            decoded = (actions + self.encoding.space.start).astype(self.encoding.space.dtype)
        else:
            decoded = self.encoding.decode(actions)
        self.venv.step_async(decoded)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        infos = [
            info | {"terminal_observation": self._encode_one(info["terminal_observation"])} if done else info
            for info, done in zip(infos, dones, strict=True)
        ]
        return self.encode(observations), rewards, dones, infos  # type: ignore[arg-type]

    def _encode_one(self, observation: Observation) -> Array:
        row: Array = self.encode(observation)[0]
        return row


def encoded_spaces(size: int, encoding: ActionEncoding) -> tuple[spaces.Box, spaces.Space]:
    """What the generator sees and does."""
    seen = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    if isinstance(encoding.space, spaces.Discrete):
        return seen, spaces.Discrete(encoding.size)
    return seen, spaces.Box(-1.0, 1.0, (encoding.size,), np.float32)
