"""Demonstrations that `aime-gym label` wrote, in d3rlpy: behavioural cloning of the inferred actions.

It needs NumPy and `pip install d3rlpy`, in an environment of its own: d3rlpy pins other versions than aime_gym.
"""

import sys

import d3rlpy
import gymnasium as gym
import numpy as np

path, env_id = sys.argv[1:]
data = np.load(path)
dataset = d3rlpy.dataset.MDPDataset(
    observations=data["observations"],
    actions=data["actions"],
    rewards=data["rewards"] if "rewards" in data else np.zeros(len(data["actions"]), np.float32),
    terminals=data["terminals"].astype(np.float32),
    timeouts=data["timeouts"].astype(np.float32),
)

discrete = data["actions"].dtype.kind == "i"
config = d3rlpy.algos.DiscreteBCConfig() if discrete else d3rlpy.algos.BCConfig()
agent = config.create(device="cpu")
agent.fit(dataset, n_steps=1000, n_steps_per_epoch=1000, save_interval=10, show_progress=False)
returns = [d3rlpy.metrics.evaluate_qlearning_with_environment(agent, gym.make(env_id), n_trials=1) for _ in range(20)]
print(f"d3rlpy's BC: return {np.mean(returns):.0f} +/- {np.std(returns):.0f}")
