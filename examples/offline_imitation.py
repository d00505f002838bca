"""Demonstrations that `aime-gym label` wrote, in the imitation library: behavioural cloning of the inferred actions.

It needs NumPy and `pip install imitation`, in an environment of its own: imitation pins other versions than aime_gym.
"""

import sys

import gymnasium as gym
import numpy as np
from imitation.algorithms.bc import BC
from imitation.data.types import Transitions
from stable_baselines3.common.evaluation import evaluate_policy

path, env_id = sys.argv[1:]
data = np.load(path)
transitions = Transitions(
    obs=data["observations"],
    acts=data["actions"],
    next_obs=data["next_observations"],
    dones=data["terminals"] | data["timeouts"],
    infos=np.array([{} for _ in data["actions"]]),
)

env = gym.make(env_id)
agent = BC(
    observation_space=env.observation_space,
    action_space=env.action_space,
    demonstrations=transitions,
    batch_size=256,
    rng=np.random.default_rng(0),
)
agent.train(n_epochs=10, progress_bar=False)
mean, std = evaluate_policy(agent.policy, env, n_eval_episodes=20)
print(f"imitation's BC: return {mean:.0f} +/- {std:.0f}")
