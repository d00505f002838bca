"""``aime-gym evaluate``: a saved agent, beside random actions."""

from __future__ import annotations

from pathlib import Path

import click

from aime_gym.cli import shared
from aime_gym.experiments.config import TaskConfig


@shared.verb("evaluate a saved agent")
@shared.agent_file
@shared.task_options()
@shared.number_option("--episodes", "how many", default=50)
@click.option("--video", type=click.Path(path_type=Path), metavar="FILE", help="write an .mp4 of the first 3 episodes")
@shared.seed_option
def evaluate(agent: Path, task: TaskConfig, episodes: int, video: Path | None, seed: int) -> int:
    """Run a saved agent for whole episodes, beside random actions.

    Examples (make the task with the options that the agent was trained with):
      aime-gym evaluate reach.zip reach-v3 --video reach.mp4
      aime-gym evaluate runs/reach-v3/bco.zip reach-v3 --episodes 100 --seed 1
    """
    with shared.checks():
        from aime_gym.agents.registry import load_agent
        from aime_gym.experiments.evaluation import evaluate as score
        from aime_gym.experiments.evaluation import evaluate_random
        from aime_gym.experiments.report import run_table
        from aime_gym.experiments.results import Role, run_of_score
        from aime_gym.experiments.video import VideoPolicy, check_video, record_video

        env = task.make()
        loaded = load_agent(agent, env)
        if video is not None:
            shared.check_output(video, "video")
            check_video(video, task, "video")
    role: Role = "oracle" if loaded.needs_demonstration_actions else "agent"
    runs = [
        run_of_score("random", "random", evaluate_random(env, episodes, seed=seed, progress=True)),
        run_of_score(agent.stem, role, score(loaded, env, episodes, seed=seed, progress=True)),
    ]
    shared.console().print(run_table(runs, f"{task}, {episodes} episodes each"))
    if video is not None:
        shown = VideoPolicy(agent.stem, task, lambda env: loaded)
        record_video(video, [shown], episodes=min(3, episodes), seed=seed)
        print(video)
    env.close()
    return 0
