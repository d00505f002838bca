"""AIME on a robot arm: the script of `sac.py`, in which the import and the data differ, and nothing else."""

import gymnasium as gym
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from aime_gym.agents import AIMEAgent as Agent
from aime_gym.data import collect

ID, OUT = "aime_gym:aime_gym/reach-v3-position-v0", "runs/examples"
play, demos = collect(gym.make(ID), "play", 20, seed=0), collect(gym.make(ID), "expert", 10, seed=1)
budget = {"batch_size": 16, "model_updates": 300, "inverse_updates": 600, "clone_updates": 600, "policy_updates": 50}
steps, data = 0, {"play": play, "demonstrations": demos, **budget}

env = make_vec_env(ID, seed=0)
watch = EvalCallback(make_vec_env(ID), eval_freq=500, n_eval_episodes=3, log_path=OUT, best_model_save_path=OUT)
agent = Agent("MlpPolicy", env, seed=0, verbose=1, tensorboard_log=OUT, **data)
agent.learn(steps, callback=watch, progress_bar=True)
agent.save(f"{OUT}/agent")

agent = Agent.load(f"{OUT}/agent", env=env)
mean, std = evaluate_policy(agent, agent.get_env(), n_eval_episodes=10)
print(f"{Agent.__name__}: return {mean:.0f} +/- {std:.0f}")
