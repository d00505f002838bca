"""SB3's SAC on a robot arm: a benchmark script as many have one. `aime.py` is the same script with another agent."""

from stable_baselines3 import SAC as Agent
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ID, OUT = "aime_gym:aime_gym/reach-v3-position-v0", "runs/examples"
steps, data = 1_000, {}

env = make_vec_env(ID, seed=0)
watch = EvalCallback(make_vec_env(ID), eval_freq=500, n_eval_episodes=3, log_path=OUT, best_model_save_path=OUT)
agent = Agent("MlpPolicy", env, seed=0, verbose=1, tensorboard_log=OUT, **data)
agent.learn(steps, callback=watch, progress_bar=True)
agent.save(f"{OUT}/agent")

agent = Agent.load(f"{OUT}/agent", env=env)
mean, std = evaluate_policy(agent, agent.get_env(), n_eval_episodes=10)
print(f"{Agent.__name__}: return {mean:.0f} +/- {std:.0f}")
