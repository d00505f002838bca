"""The command line: ``aime-gym collect | train | diagnose | beliefs | evaluate | compare | benchmark | report``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Everything else is imported by the verb that needs it: --help answers at once.
if TYPE_CHECKING:
    from rich.console import Console

    from aime_gym.experiments.sources import Data
    from aime_gym.experiments.task import TaskConfig

_COMPARE_HELP = """\
Record play data and demonstrations (or load them), train agents on them, evaluate all of them on the same episodes, and
print one table beside a random policy and the expert. Without arguments this is the demo: a robot arm learns to reach
from positions alone, and only the oracle bc sees the demonstrations' actions.

Into --out go results.json (all figures, each episode, versions, machine), returns.png, a video of the expert and the
first agent side by side, and every trained agent as a .zip. Ctrl-C ends the training phase that runs, and keeps what
was learnt.
"""

_COMPARE_EXAMPLES = """\
the same job for ...

  another task: any of Meta-World v3 or dm_control's suite, or any Gymnasium id
    aime-gym compare door-open-v3
    aime-gym compare Reacher-v5 --expert sac:20000
    aime-gym compare Reacher-v5 --expert sac:runs/Reacher-v5/expert.zip

  another modality (position leaves the velocities out; pixels are rendered), action repeat or time limit
    aime-gym compare reach-v3 --modality state --action-repeat 1 --max-episode-steps 500
    aime-gym compare reach-v3 --modality pixels --quality fast
    aime-gym compare CartPole-v1 --positions 0,2 --agents bco bc --expert ppo:20000

  another dataset: a folder of `aime-gym collect`, a Minari dataset by id or path, a folder of .npz or .hdf5 files
    aime-gym compare walker-walk --play data/walker-play --demos data/walker-expert --demo-count 100
    aime-gym compare reach-v3 --play random --play-episodes 400 --demo-count 5

  another agent, or the same one with other options; the first one is in the video
    aime-gym compare reach-v3 --agents aime bco
    aime-gym compare reach-v3 --agents aime aime:policy_updates=0 bco:stack=3,learning_rate=0.0003
    aime-gym compare reach-v3 --agents aime:preset=dreamer,model_updates=5000
"""

_TRAIN_EXAMPLES = """\
examples:
  aime-gym train aime reach-v3 --out reach.zip
  aime-gym train bco walker-walk --play data/walker-play --demos data/walker-expert -o stack=3 --out walker.zip
  aime-gym train aime reach-v3 --checkpoint runs/reach --out reach.zip
  aime-gym train aime reach-v3 --modality pixels --demos "data/reach-videos/*.mp4" --out reach.zip
"""

_EVALUATE_EXAMPLES = """\
examples (make the task with the options that the agent was trained with):
  aime-gym evaluate reach.zip reach-v3 --video reach.mp4
  aime-gym evaluate runs/reach-v3/bco.zip reach-v3 --episodes 100 --seed 1
"""

_COLLECT_EXAMPLES = """\
examples:
  aime-gym collect reach-v3 --policy play --episodes 200 --out data/reach-play
  aime-gym collect reach-v3 --policy expert --episodes 20 --without-actions --out data/reach-demos
  aime-gym collect reach-v3 --policy expert --episodes 20 --modality pixels --video --out data/reach-videos
  aime-gym collect Reacher-v5 --policy sac:model.zip --episodes 50 --out data/reacher-expert
  aime-gym collect window-open-v3 --policy plan2explore --episodes 150 --out data/window-play
  aime-gym collect Pendulum-v1 --modality state --policy dreamer:10000 --episodes 20 --out data/pendulum-expert
"""

_DIAGNOSE_HELP = """\
Say what stands between a trained agent and a task, before it is deployed: too little play (the world model does not
know what the demonstrations show), too few demonstrations (they do not foretell one another), or nothing. Takes agents
with a world model, whether they have imitated or not; runs no episode.

--play should be recorded in the way of what the agent was trained on, but anew. If the demonstrations have actions,
which the agent does not see, the inferred ones are compared with them. Into --out go diagnosis.json and diagnosis.png.
"""

_DIAGNOSE_EXAMPLES = """\
examples:
  aime-gym collect reach-v3 --policy play --episodes 30 --seed 1 --out data/reach-fresh-play
  aime-gym diagnose reach.zip --demos data/reach-demos --play data/reach-fresh-play --out runs/reach-diagnosis
"""

_BELIEFS_HELP = """\
Write a video of what a trained agent believes that demonstrations show, for agents that see images. Side by side: the
demonstration; its reconstruction by the world model under the actions that the agent infers; and the prediction, which
sees a few records of it and from then on these actions only. What the first lacks of the demonstration the world model
cannot represent; what the second lacks of the first it cannot foresee.
"""

_BELIEFS_EXAMPLES = """\
examples:
  aime-gym beliefs walker.zip --demos data/walker-demos --out walker.mp4
  aime-gym beliefs walker.zip --demos data/walker-demos --episodes 1 --length 50 --context 10 --out walker.gif
"""

_BENCHMARK_HELP = """\
Train and evaluate all agents of a suite on all of its tasks, with all of its seeds and numbers of demonstrations, in
processes of one thread each. What cells of a task share (play, demonstrations, the expert) is made once.

Each finished cell is a line of OUT/results.jsonl. Run the same command again after Ctrl-C, a crash or a change of the
suite: what is done is not done again. A cell that fails is kept with its error, and the rest goes on.
"""

_BENCHMARK_EXAMPLES = """\
examples:
  aime-gym benchmark benchmarks/suites/classic.toml --out runs/classic
  aime-gym benchmark benchmarks/suites/reach.toml --out runs/reach --workers 1
  aime-gym report runs/classic

a suite of one's own (`python -c "import aime_gym.experiments.suite as s; print(s.__doc__)"` has all keys):
  seeds = [0, 1, 2]
  demonstrations = [5, 20]
  [tasks.CartPole-v1]
  modality = "state"
  demos = "classic/CartPole-v1"
  [agents.bco]
  [agents.bco-wide]
  agent = "bco"
  options = { batch_size = 500 }
"""

_REPORT_EXAMPLES = """\
examples:
  aime-gym report runs/classic
  aime-gym report runs/classic --against bco
  aime-gym report runs/one runs/other/results.jsonl --out runs/both
"""

_EXPERT_HELP = (
    "who demonstrates: 'scripted' (Meta-World; the default), 'sac:20000' (train SB3's sac, ppo or td3 on the task's "
    "state for so many steps; or 'dreamer', in imagination), or 'sac:model.zip' (a trained SB3 model; such files run "
    "code, load only what you trust)"
)

#: What errors of the library call an argument, and what it is called here.
_OPTIONS = {"id": "ENV_ID", "checkpoint_dir": "--checkpoint", "suite": "SUITE", "results": "RESULTS"} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "modality", "action_repeat", "max_episode_steps", "image_size", "quality", "agents", "play", "play_episodes",
        "demos", "demo_count", "expert", "eval_episodes", "video_episodes", "policy", "episodes", "seed", "out",
        "workers", "against", "video", "context", "length", "fps",
    )
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 0, or 2 for input that no work was done for."""
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except KeyboardInterrupt:
        print("aime-gym: interrupted", file=sys.stderr)
        return 130


# The verbs: each one checks all input, then works


def _compare(options: argparse.Namespace) -> int:
    with _BadInputEnds("compare"):
        from aime_gym.experiments.agents import AgentSpec
        from aime_gym.experiments.comparison import Comparison, as_file_name, prepare, run

        comparison = Comparison(
            _task(options),
            tuple(AgentSpec.parse(text) for text in options.agents),
            _data(options),
            eval_episodes=options.eval_episodes,
            video_episodes=options.video_episodes,
            seed=options.seed,
        )
        out = options.out or Path("runs") / as_file_name(options.env)
        out.mkdir(parents=True, exist_ok=True)
        prepared = prepare(comparison)
    results = run(prepared, out)
    return 130 if results["interrupted"] else 0


def _collect(options: argparse.Namespace) -> int:
    with _BadInputEnds("collect"):
        from aime_gym.data import frame_rate_of, frame_shape, save_minari, save_videos
        from aime_gym.experiments.experts import SCRIPTED, prepare_expert, record_demonstrations
        from aime_gym.experiments.sources import PLAY_POLICIES, check_play, record_play

        task = _task(options)
        with task.make() as env:
            if options.video and (frame_shape(env.observation_space) is None or frame_rate_of(env) is None):
                raise ValueError(
                    f"video: expected an environment that shows images (--modality pixels) and says at which rate, "
                    f"got {env.observation_space}"
                )
        if options.out.exists():
            raise FileExistsError(f"out: {options.out} exists already: choose another name, or remove it first")
        if options.episodes < 1:
            raise ValueError(f"episodes: expected at least 1, got {options.episodes}")
        expert = None
        if options.policy in PLAY_POLICIES:
            check_play(task, options.policy)
        else:
            if options.policy != "expert" and ":" not in options.policy:
                raise ValueError(
                    f"policy: expected {', '.join(map(repr, PLAY_POLICIES))}, 'expert', 'sac:20000', "
                    f"'sac:model.zip' or 'dreamer:20000', got {options.policy!r}"
                )
            name = SCRIPTED if options.policy == "expert" else options.policy
            expert = prepare_expert(name, task, options.seed)
    if expert is None:
        trajectories = record_play(task, options.policy, options.episodes, seed=options.seed)
    else:
        expert.train()
        trajectories = record_demonstrations(expert, task, options.episodes, seed=options.seed)
    if not trajectories:
        print("aime-gym collect: interrupted before the first episode ended, nothing is written", file=sys.stderr)
        return 130
    with task.make() as env:
        if options.video:
            save_videos(options.out, trajectories, env, policy=options.policy)
        else:
            save_minari(
                options.out,
                trajectories,
                env,
                actions=not options.without_actions,
                metadata={"policy": options.policy},
            )
    returns = [trajectory.episode_return for trajectory in trajectories]
    mean = sum(returns) / len(returns)
    print(f"{options.out}: {len(trajectories)} episodes, {sum(map(len, trajectories))} steps, mean return {mean:.2f}")
    return 0


def _train(options: argparse.Namespace) -> int:
    with _BadInputEnds("train"):
        from aime_gym.experiments.agents import AgentSpec, check_learn, train, training_env
        from aime_gym.experiments.comparison import Comparison, prepare

        text = options.agent + (":" + ",".join(options.option) if options.option else "")
        comparison = Comparison(_task(options), (AgentSpec.parse(text),), _data(options), seed=options.seed)
        check_learn(comparison.agents[0].agent_class, options.learn)
        (spec,), sources = comparison.agents, prepare(comparison).sources
    if sources.expert is not None and sources.loaded_demos is None:
        sources.expert.train()
    play = sources.play()
    demos = sources.demos()
    if not spec.agent_class.needs_demonstration_actions:
        demos = [demo.without_actions() for demo in demos]
    with training_env(spec.agent_class, comparison.task) as env, _BadInputEnds("train"):
        agent = spec.build(comparison.task, env, comparison.seed, checkpoint_dir=options.checkpoint)
        try:
            seconds = train(agent, play, demos, learn=options.learn)
        except KeyboardInterrupt:
            if options.checkpoint is None:
                raise
            print(f"aime-gym train: interrupted; the same command goes on from {options.checkpoint}", file=sys.stderr)
            return 130
        agent.save(options.out)
    print(f"{options.out}: {spec.label}, trained in {seconds:.0f} seconds")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    with _BadInputEnds("evaluate"):
        from rich.console import Console

        from aime_gym.agents.registry import load_agent
        from aime_gym.experiments.evaluation import evaluate, evaluate_random
        from aime_gym.experiments.report import Row, results_table
        from aime_gym.experiments.video import Half, record_video

        task = _task(options)
        if options.episodes < 1:
            raise ValueError(f"episodes: expected at least 1, got {options.episodes}")
        env = task.make()
        agent = load_agent(options.agent, env)
    rows = [
        Row("random", "random", evaluate_random(env, options.episodes, seed=options.seed, progress=True)),
        Row(
            options.agent.stem,
            "oracle" if agent.needs_demonstration_actions else "agent",
            evaluate(agent, env, options.episodes, seed=options.seed, progress=True),
        ),
    ]
    Console().print(results_table(rows, f"{task}, {options.episodes} episodes each"))
    if options.video is not None:
        half = Half(options.agent.stem, task, lambda env: agent)
        record_video(options.video, [half], episodes=min(3, options.episodes), seed=options.seed)
        print(options.video)
    env.close()
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    with _BadInputEnds("diagnose"):
        from rich.console import Console

        from aime_gym.experiments.diagnosing import diagnose_file, write_diagnosis

        report = diagnose_file(options.agent, options.demos, options.play, demo_count=options.demo_count)
    files = write_diagnosis(report, options.out)
    _wide(Console()).print(report.table())
    print(f"wrote {', '.join(map(str, files))}")
    return 0


def _beliefs(options: argparse.Namespace) -> int:
    with _BadInputEnds("beliefs"):
        from aime_gym.experiments.diagnosing import render_beliefs_of_file

        view = {name: getattr(options, name) for name in ("context", "length", "episodes", "fps")}
        print(f"wrote {render_beliefs_of_file(options.agent, options.demos, options.out, **view)}")
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    with _BadInputEnds("benchmark"):
        from rich.console import Console

        from aime_gym.experiments.benchmark import check, run
        from aime_gym.experiments.benchmark_report import load_results, summarise, task_tables
        from aime_gym.experiments.provenance import available_cores
        from aime_gym.experiments.suite import read_suite

        if options.workers is not None and options.workers < 1:
            raise ValueError(f"workers: expected at least 1, got {options.workers}")
        suite = read_suite(options.suite)
        check(suite)
        out = options.out or Path("runs") / options.suite.stem
        outcome = run(suite, out, workers=options.workers or available_cores(), retry_failed=options.retry_failed)
    if outcome.done:
        results = load_results([out])
        _wide(Console()).print(task_tables(results, summarise(results)))
    for title, error in outcome.failed.items():
        print(f"failed: {title}: {error}")
    print(f"{out}: {outcome.done} of {outcome.cells} cells are done; `aime-gym report {out}` has intervals and figures")
    if outcome.interrupted:
        print("aime-gym benchmark: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 1 if outcome.failed else 0


def _report(options: argparse.Namespace) -> int:
    with _BadInputEnds("report"):
        from rich.console import Console

        from aime_gym.experiments.benchmark_report import analyse, load_results, progress, report_tables, write_report

        results = load_results(options.results)
        report = analyse(results, options.against)
    first = options.results[0]
    files = write_report(report, options.out or (first if first.is_dir() else first.parent))
    _wide(Console()).print(report_tables(report))
    print(f"{progress(results)}; wrote {', '.join(map(str, files))}")
    return 0


def _wide(console: Console) -> Console:
    """Leave room for tables where a file, and no terminal, decides the width."""
    if not console.is_terminal:
        console.width = 130
    return console


class _BadInputEnds:
    """Everything in here is a check of what the user gave: its errors end in one line and exit status 2."""

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        from aime_gym.wrappers.rendering import RenderingError

        if isinstance(error, ValueError | OSError | NotImplementedError | ImportError | RenderingError):
            _end(f"aime-gym {self._verb}", _in_options(str(error)))


def _end(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _in_options(message: str) -> str:
    """Name arguments as the command line does: ``demo_count`` is ``--demo-count`` here."""
    message = re.sub(r"position_(indices|keys)", "--positions", message)
    name = re.match(r"[a-z_]+(?=[:\[])", message)
    if name is None or name[0] not in _OPTIONS:
        return message
    return _OPTIONS[name[0]] + message[name.end() :]


# Arguments


def _task(options: argparse.Namespace) -> TaskConfig:
    from aime_gym.experiments.task import TaskConfig

    positions = tuple(filter(None, (options.positions or "").split(",")))
    return TaskConfig(
        options.env,
        options.modality,
        options.action_repeat,
        options.max_episode_steps,
        tuple(map(int, positions)) if all(position.isdigit() for position in positions) else positions,
        options.image_size,
        options.quality,
    )


def _data(options: argparse.Namespace) -> Data:
    from aime_gym.experiments.sources import Data

    return Data(options.play, options.play_episodes, options.demos, options.demo_count, options.expert)


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        _end(self.prog, f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="aime-gym",
        description="Imitation from demonstrations without actions, in any Gymnasium environment.",
        epilog="`aime-gym VERB --help` has examples. A first one: aime-gym compare reach-v3",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    compare = verbs.add_parser(
        "compare",
        help="train agents on the same data, evaluate them on the same episodes, and report",
        description=_COMPARE_HELP,
        epilog=_COMPARE_EXAMPLES,
    )
    compare.add_argument("env", nargs="?", default="reach-v3", metavar="ENV_ID", help="the task (default: %(default)s)")
    _add_task_options(compare)
    compare.add_argument(
        "--agents",
        nargs="+",
        default=["aime", "bco", "bc"],
        metavar="AGENT[:OPTION=VALUE,...]",
        help="registered agents, with hyper-parameters that differ from the default (default: aime bco bc)",
    )
    _add_data_options(compare)
    compare.add_argument("--eval-episodes", type=int, default=50, metavar="N", help="for each policy (default: 50)")
    compare.add_argument(
        "--video-episodes", type=int, default=3, metavar="N", help="episodes in the video; 0 for no video (default: 3)"
    )
    _add_seed(compare)
    compare.add_argument("--out", type=Path, metavar="FOLDER", help="for all that is written (default: runs/ENV_ID)")
    compare.set_defaults(verb=_compare)

    collect = verbs.add_parser(
        "collect",
        help="record episodes as a Minari dataset, or as videos",
        description="Record whole episodes of a policy as a Minari dataset, or as videos.",
        epilog=_COLLECT_EXAMPLES,
    )
    _add_env(collect)
    _add_task_options(collect)
    collect.add_argument(
        "--policy",
        default="play",
        help="'play' (random actions, held for a while, of all sizes; the default), 'random' (uniform), 'expert' "
        "(Meta-World's script), 'sac:20000' or 'sac:model.zip' (see aime-gym compare --help), 'plan2explore' (looks "
        "for what its world model cannot predict, without a reward: all episodes that it takes to learn are the data), "
        "'dreamer:20000' (learns the task in its world model's imagination for so many steps: the data are the "
        "episodes that it then demonstrates)",
    )
    collect.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (default: %(default)s)")
    collect.add_argument("--without-actions", action="store_true", help="leave the actions out, for demonstrations")
    collect.add_argument(
        "--video",
        action="store_true",
        help="write each episode as an .mp4, without loss, and a videos.json beside them, in place of a Minari "
        "dataset: demonstrations without actions and rewards; with --modality pixels",
    )
    _add_seed(collect)
    collect.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    collect.set_defaults(verb=_collect)

    train = verbs.add_parser(
        "train",
        help="train one agent, and save it",
        description="Record or load data, run an agent's offline phases on it, and save the agent.",
        epilog=_TRAIN_EXAMPLES,
    )
    train.add_argument("agent", metavar="AGENT", help="a registered agent: aime, bco, bc")
    _add_env(train)
    _add_task_options(train)
    _add_data_options(train)
    train.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="a hyper-parameter, or preset=NAME; again for further ones",
    )
    train.add_argument(
        "--learn", type=int, default=0, metavar="STEPS", help="environment steps of learn, after imitate"
    )
    train.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="keep how far the training came: the same command, after Ctrl-C or a crash, goes on from there",
    )
    _add_seed(train)
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="the agent's file, a .zip")
    train.set_defaults(verb=_train)

    evaluate = verbs.add_parser(
        "evaluate",
        help="evaluate a saved agent",
        description="Run a saved agent for whole episodes, beside random actions.",
        epilog=_EVALUATE_EXAMPLES,
    )
    evaluate.add_argument("agent", type=Path, metavar="FILE", help="an agent's file, as train and compare write it")
    _add_env(evaluate)
    _add_task_options(evaluate)
    evaluate.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (default: %(default)s)")
    evaluate.add_argument("--video", type=Path, metavar="FILE", help="write an .mp4 of the first 3 episodes")
    _add_seed(evaluate)
    evaluate.set_defaults(verb=_evaluate)

    diagnose = verbs.add_parser(
        "diagnose",
        help="say whether a trained agent needs more play, more demonstrations, or nothing",
        description=_DIAGNOSE_HELP,
        epilog=_DIAGNOSE_EXAMPLES,
    )
    diagnose.add_argument("agent", type=Path, metavar="FILE", help="an agent's file, as train and compare write it")
    diagnose.add_argument("--demos", required=True, metavar="PATH|ID", help="a dataset of what is to be imitated")
    diagnose.add_argument("--demo-count", type=int, metavar="N", help="how many to take of them (default: all)")
    diagnose.add_argument("--play", required=True, metavar="PATH|ID", help="a dataset with actions, recorded anew")
    diagnose.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for all that is written")
    diagnose.set_defaults(verb=_diagnose)

    beliefs = verbs.add_parser(
        "beliefs",
        help="show what a trained agent sees in demonstrations, and what it foresees",
        description=_BELIEFS_HELP,
        epilog=_BELIEFS_EXAMPLES,
    )
    beliefs.add_argument("agent", type=Path, metavar="FILE", help="an agent's file, as train and compare write it")
    beliefs.add_argument("--demos", required=True, metavar="PATH|ID", help="a dataset of what is to be imitated")
    beliefs.add_argument(
        "--context", type=int, default=5, metavar="N", help="records that the prediction sees (default: %(default)s)"
    )
    beliefs.add_argument("--length", type=int, metavar="N", help="records of each demonstration (default: all)")
    beliefs.add_argument("--episodes", type=int, default=3, metavar="N", help="demonstrations (default: %(default)s)")
    beliefs.add_argument("--fps", type=float, default=10, metavar="N", help="records a second (default: %(default)s)")
    beliefs.add_argument("--out", type=Path, required=True, metavar="FILE", help="the video, an .mp4 or .gif")
    beliefs.set_defaults(verb=_beliefs)

    benchmark = verbs.add_parser(
        "benchmark",
        help="run a suite of agents, tasks and seeds on all cores",
        description=_BENCHMARK_HELP,
        epilog=_BENCHMARK_EXAMPLES,
    )
    benchmark.add_argument("suite", type=Path, metavar="SUITE", help="a TOML file, as those in benchmarks/suites/")
    benchmark.add_argument("--out", type=Path, metavar="FOLDER", help="for all that is written (default: runs/SUITE)")
    benchmark.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    benchmark.add_argument("--retry-failed", action="store_true", help="do again what failed before")
    benchmark.set_defaults(verb=_benchmark)

    report = verbs.add_parser(
        "report",
        help="tables with intervals, and figures, from a benchmark's results",
        description="Normalised means and interquartile means with 95% bootstrap intervals, performance profiles, "
        "probability of improvement and learning curves, from a benchmark that is finished or not.",
        epilog=_REPORT_EXAMPLES,
    )
    report.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="folders of `aime-gym benchmark`")
    report.add_argument("--against", metavar="POLICY", help="which the others are to improve on (default: the first)")
    report.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for report.md, report.json and the figures (default: the first one)"
    )
    report.set_defaults(verb=_report)
    return parser


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "env", metavar="ENV_ID", help="walker-walk (dm_control), reach-v3 (Meta-World), or any Gymnasium id"
    )


def _add_task_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the task")
    group.add_argument(
        "--modality", default="position", help="state, position (the default; no velocities) or pixels: rendered frames"
    )
    group.add_argument(
        "--positions",
        metavar="A,B,...",
        help="the entries (numbers) or sensors (names) that are positions, for tasks whose positions are not known",
    )
    group.add_argument(
        "--action-repeat", type=int, metavar="N", help="simulator steps per decision (default: the task's own)"
    )
    group.add_argument(
        "--max-episode-steps", type=int, metavar="N", help="episode length in simulator steps (default: the task's own)"
    )
    group.add_argument("--image-size", type=int, metavar="N", help="side of the frames of pixels (default: 64)")
    group.add_argument(
        "--quality",
        default="default",
        help="of the frames of pixels: default (the simulator's own), or fast: no shadows, reflections and "
        "multisampling (MuJoCo). Data must be rendered as the task is",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--play",
        default="play",
        metavar="play|random|plan2explore|PATH|ID",
        help="data with actions to learn the body from: 'play' (recorded here: random actions, held for a while, of "
        "all sizes; the default), 'random' (uniform), 'plan2explore' (see aime-gym collect --help), or a dataset",
    )
    group.add_argument(
        "--play-episodes",
        type=int,
        metavar="N",
        help="to record (default: 600), or to take of a dataset (default: all)",
    )
    group.add_argument(
        "--demos",
        default="expert",
        metavar="expert|PATH|ID",
        help="what to imitate: 'expert' (recorded here; the default), a dataset, or videos ('data/*.mp4', or their "
        "folder). Actions go to oracles only",
    )
    group.add_argument(
        "--demo-count", type=int, metavar="N", help="to record (default: 20), or to take from a dataset (all)"
    )
    group.add_argument("--expert", metavar="EXPERT", help=_EXPERT_HELP)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same run (default: 0)")


if __name__ == "__main__":
    sys.exit(main())
