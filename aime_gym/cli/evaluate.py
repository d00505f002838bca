"""``aime-gym evaluate``: a saved agent, beside random actions."""

from __future__ import annotations

from aime_gym.cli import shared
from aime_gym.experiments.config import Positive


@shared.verb("evaluate a saved agent")
def evaluate(
    agent: shared.File,
    task: shared.ChosenTask,
    *,
    episodes: Positive = 50,
    video: shared.File | None = None,
    seed: shared.Seed = 0,
) -> int:
    """Run a saved agent for whole episodes, beside random actions. Its file knows the
    task that it was trained in. Options are for a file that does not, and for
    another --max-episode-steps.

    :param agent: an agent's file, as train and compare write it
    :param episodes: number of episodes
    :param video: an .mp4 of the first 3 episodes
    :param seed: seed of all random numbers: the same seed gives the same run

    Examples:
      aime-gym evaluate reach.zip --video reach.mp4
      aime-gym evaluate runs/reach-v3/bco.zip --episodes 100 --seed 1
      aime-gym evaluate own.zip CartPole-v1
    """
    with shared.checks():
        from aime_gym.agents.registry import load_agent
        from aime_gym.experiments.evaluation import evaluate as score
        from aime_gym.experiments.evaluation import evaluate_random, evaluation_envs
        from aime_gym.experiments.report import print_tables, run_table
        from aime_gym.experiments.results import Role, run_of_score
        from aime_gym.experiments.video import VideoPolicy, check_video, record_video
        from aime_gym.tasks import chosen_task

        loaded = load_agent(agent)
        config = chosen_task(loaded.known_task, task, agent.name)
        env = config.make()
        loaded.set_env(env)
        if video is not None:
            shared.check_output(video, "video")
            check_video(video, config, "video")
    role: Role = "oracle" if loaded.reads_actions(loaded.config) else "agent"
    with evaluation_envs(config, episodes) as envs:
        runs = [
            run_of_score("random", "random", evaluate_random(env, episodes, seed=seed, progress=True)),
            run_of_score(agent.stem, role, score(loaded, envs, episodes, seed=seed, progress=True)),
        ]
    print_tables(run_table(runs, f"{config}, {episodes} episodes each"))
    if video is not None:
        shown = VideoPolicy(agent.stem, config, lambda env: loaded)
        record_video(video, [shown], episodes=min(3, episodes), seed=seed)
        print(video)
    env.close()
    return 0
