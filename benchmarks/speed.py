"""What users wait for, as ratios of contestants that take turns in one run.

A row of the table compares contestants. Each runs in a process of its own, and a turn each, round after round, so that
whatever else the machine does hits all of them. Figures are medians over turns for one unit (an update, an environment
step): processor time with that of other processes that the contestant starts, and the time that passed. Ratios are
medians of those of each round, to the first contestant of the row; on a machine with other jobs, read those of
processor time. First turns do not count. One line of JSON for each contestant is appended to ``--out``.

    python benchmarks/speed.py
    python benchmarks/speed.py --only "phase 1, vectors" "phase 2, vectors" --authors ~/aime-v2
    python benchmarks/speed.py --only "learned reward" --imitation ~/venv-imitation/bin/python
    python benchmarks/speed.py --table benchmarks/results/speed.jsonl

``--authors`` is a checkout of https://github.com/argmax-ai/aime-v2: their model ``rssmo`` with the losses that their
training has. Their data loader's workers are left out: sequences are drawn where the update runs. ``--imitation`` is a
Python that has the package ``imitation``, which needs versions of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from subprocess import PIPE
from types import ModuleType, SimpleNamespace
from typing import Any

# Nothing else here: contestants differ in what they can import, and in what they import first.

Options = argparse.Namespace
#: The work of a turn, and its number of units.
Turn = tuple[Callable[[], Any], int]

# Updates of world models and policies


ACTIONS, EPISODES, RECORDS, VECTOR = 6, 20, 101, 24
SHAPES = {"vectors": (50, 50), "pixels": (8, 16)}  # sequences of a batch, records of each


def our_update(options: Options, *, preset: str, phase: int, side: int = 0) -> Turn:
    """As ``pretrain`` and ``imitate`` make them; phase 2 without the prior of a warm start."""
    from dataclasses import replace

    import numpy as np
    import torch
    from gymnasium import spaces

    from aime_gym.data import ActionEncoding, TrajectoryDataset
    from aime_gym.model_based.action_inference import infer_policy
    from aime_gym.model_based.config import AIME_PRESETS
    from aime_gym.model_based.pretraining import fit_world_model
    from aime_gym.models.policies import make_latent_policy
    from aime_gym.models.world_model import WorldModel
    from aime_gym.types import Trajectory

    torch.manual_seed(0)
    batch, length = SHAPES["pixels" if side else "vectors"]
    config = replace(AIME_PRESETS[preset], batch_size=batch, sequence_length=length)
    config = replace(config, warm_start=False, action_prior=False)
    encoding = ActionEncoding(spaces.Box(-1, 1, (ACTIONS,), np.float32))
    episodes = [Trajectory(seen, actions if phase == 1 else None) for seen, actions in recorded(side)]
    dataset = TrajectoryDataset(episodes, encoding if phase == 1 else None, torch.device("cpu"))
    shape = (side, side, 3) if side else (VECTOR,)
    model = WorldModel(config.world_model, {"observation": shape}, ACTIONS)
    updates: list[Callable[[], Any]] = []  # instead of making them, the loop keeps what they are
    loop: Any = SimpleNamespace(
        generator=torch.Generator().manual_seed(0),
        minimize=lambda name, total, loss, optimizer: updates.append(lambda: optimizer.step(loss()[0])),
        run=lambda name, total, update, state: updates.append(update),
    )
    if phase == 1:
        fit_world_model(model, dataset, loop, config)
    else:
        policy = make_latent_policy(model.feature_size, ACTIONS, discrete=False)
        infer_policy(model.requires_grad_(False), None, policy, dataset, loop, config, torch.randn)  # type: ignore[arg-type]
    model.requires_grad_(phase == 1)
    return updates[0], 1


def their_update(options: Options, *, phase: int, side: int = 0) -> Turn:
    """As their ``train_model_only.py`` and ``train_aime.py`` make them, on a processor."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    sys.path.insert(0, str(options.authors))
    stand_in()
    from aimev2.data import SequenceDataset
    from aimev2.models.policy import TanhGaussianPolicy
    from aimev2.models.ssm import ssm_classes

    batch, length = SHAPES["pixels" if side else "vectors"]
    sensor = "image" if side else "vector"
    with tempfile.TemporaryDirectory() as folder:
        for number, (seen, actions) in enumerate(recorded(side)):
            marks = np.zeros(RECORDS, np.float32)
            first, last = marks.copy(), marks.copy()
            first[0] = last[-1] = 1
            own = {sensor: seen, "pre_action": np.concatenate([np.zeros_like(actions[:1]), actions])}
            np.savez(Path(folder) / f"{number}.npz", **own, is_first=first, is_last=last, is_terminal=marks)
        dataset = SequenceDataset(folder, length, overlap=True, lazy=False)
    wide = {"hidden_size": 512, "hidden_layers": 2, "hidden_activation": "swish", "norm": "ln"}
    visual = {"name": "cnn_ha", "width": 32}
    terminal = ("is_terminal", 1, {"name": "binary", "hidden_size": 128, "hidden_layers": 2})
    model = ssm_classes["rssmo"](
        [(sensor, (side, side), visual) if side else (sensor, VECTOR, {"name": "mlp", **wide, "have_head": False})],
        [
            (sensor, (side, side), {**visual, "sigmoid": False})
            if side
            else (sensor, VECTOR, {"name": "dmlp", **wide}),
            *([terminal] if phase == 1 else []),
        ],
        ACTIONS,
        [512, 30],
        probe_config=[],
        intrinsic_reward_config={},
        hidden_size=512,
        hidden_layers=2,
        norm="ln",
        kl_scale=1.0,
        free_nats=1.0,
        kl_rebalance=0.8,
        nll_reweight="none",
        idm_mode="detach" if phase == 1 else "none",
        min_std=0.1,
    )
    trained = model
    if phase == 2:
        model.requires_grad_(False)
        trained = TanhGaussianPolicy(model.state_feature_dim, ACTIONS, hidden_size=128, hidden_layers=2)
    adam = torch.optim.Adam(trained.parameters(), lr=3e-4)

    def update() -> None:
        data = dataset.sample(batch)
        loss = model(data, data["pre_action"])[2] if phase == 1 else model.filter_with_policy(data, trained)[3]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 100.0).item()
        adam.step()

    return update, 1


def stand_in() -> None:
    """What their modules import and the update does not need; resizing leaves frames of 64 x 64 as they are."""
    import torch

    class Resize(torch.nn.Identity):
        def __init__(self, size: int) -> None:
            assert size == 64
            super().__init__()

    transforms = SimpleNamespace(Resize=Resize)
    contents = {
        "einops": {"rearrange": None},
        "omegaconf": {"OmegaConf": None},
        "torchvision": {"transforms": transforms},
    }
    for name, content in contents.items():
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)


def recorded(side: int) -> list[tuple[Any, Any]]:
    """Frames (T + 1, side, side, 3) or vectors, and actions (T, A), of some episodes; what is in them costs nothing."""
    import numpy as np

    rng = np.random.default_rng(0)
    frames = partial(rng.integers, 0, 256, (RECORDS, side, side, 3), np.uint8)
    vectors = partial(rng.standard_normal, (RECORDS, VECTOR), np.float32)
    return [
        ((frames if side else vectors)(), rng.uniform(-1, 1, (RECORDS - 1, ACTIONS)).astype(np.float32))
        for _ in range(EPISODES)
    ]


# Environment steps


def play(options: Options, *, workers: int) -> Turn:
    """Record play of reach-v3: processes start, import the simulator and send what they have recorded."""
    from aime_gym import make_env
    from aime_gym.data import collect, collecting

    collecting._LONG_RECORDING = 0.0  # processes, however few the episodes
    env = partial(make_env, "reach-v3")
    return partial(collect, env, "play", 100, workers=workers, seed=0, progress=False), 100 * 100


#: PPO and the discriminator of the row "learned reward", the same for all: this package's defaults.
ENVS, PPO = 8, {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "gamma": 0.99}
ROLLOUT = ENVS * 256
HIDDEN, LAYERS, UPDATES, BATCH, RATE = 256, 2, 16, 512, 1e-3


def sb3_ppo() -> Any:
    """Return SB3's PPO on CartPole-v1."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env

    return sb3.PPO("MlpPolicy", make_vec_env("CartPole-v1", ENVS), seed=0, policy_kwargs={"net_arch": [64, 64]}, **PPO)


def plain_ppo(options: Options) -> Turn:
    """The environment's own reward."""
    return partial(sb3_ppo().learn, ROLLOUT, reset_num_timesteps=False), ROLLOUT


def our_gail(options: Options, *, penalty: float) -> Turn:
    """GAIL of this package, with or without its gradient penalty, which ``imitation`` does not have."""
    from stable_baselines3.common.env_util import make_vec_env

    from aime_gym.agents import GAILAgent

    agent = GAILAgent(
        make_vec_env("CartPole-v1", ENVS),
        demonstrations="classic/CartPole-v1",
        seed=0,
        algorithm_kwargs=PPO,
        penalty=penalty,
        discriminator_hidden=HIDDEN,
        discriminator_layers=LAYERS,
        discriminator_updates=UPDATES,
        batch_size=BATCH,
        learning_rate=RATE,
    )
    agent.imitate(total_timesteps=ROLLOUT, progress_bar=False)
    return partial(agent.learn, ROLLOUT, progress_bar=False), ROLLOUT


def their_gail(options: Options) -> Turn:
    """GAIL of ``imitation``."""
    import numpy as np
    import torch
    from imitation.algorithms.adversarial.gail import GAIL
    from imitation.data.types import Trajectory
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util import logger
    from imitation.util.networks import RunningNorm

    shipped = Path(__file__).parents[1] / "aime_gym/data/demonstrations/classic/CartPole-v1.npz"
    with np.load(shipped) as arrays:  # episodes of one length
        count = len(arrays["lengths"])
        episodes = [np.split(arrays[name], count) for name in ("observations", "actions")]
    ppo = sb3_ppo()
    trainer = GAIL(
        demonstrations=[
            Trajectory(seen, actions, None, terminal=False) for seen, actions in zip(*episodes, strict=True)
        ],
        demo_batch_size=BATCH,
        venv=ppo.get_env(),
        gen_algo=ppo,
        reward_net=BasicRewardNet(
            ppo.observation_space,
            ppo.action_space,
            hid_sizes=[HIDDEN] * LAYERS,
            activation=torch.nn.Tanh,
            normalize_input_layer=RunningNorm,
        ),
        n_disc_updates_per_round=UPDATES,
        disc_opt_kwargs={"lr": RATE},
        allow_variable_horizon=True,
        custom_logger=logger.configure(tempfile.mkdtemp(), []),
    )
    return partial(trainer.train, ROLLOUT), ROLLOUT


def evaluation(options: Options, *, agent: str) -> Turn:
    """SB3's ``evaluate_policy`` in Pendulum-v1, of networks that have learnt nothing."""
    from stable_baselines3.common.evaluation import evaluate_policy

    model: Any = untrained(agent)
    return partial(evaluate_policy, model, model.get_env(), n_eval_episodes=ENVS), 200 * ENVS


def loading(options: Options, *, agent: str) -> Turn:
    """Load such an agent."""
    model: Any = untrained(agent)
    path = Path(tempfile.mkdtemp()) / "agent.zip"
    model.save(path)
    return partial(type(model).load, path), 1


def untrained(agent: str) -> Any:
    """SB3's PPO, or one of our agents, in Pendulum-v1."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("Pendulum-v1", ENVS)
    if agent == "ppo":
        return sb3.PPO("MlpPolicy", env)
    from aime_gym import make_agent

    return make_agent(agent, env)


def frames(options: Options, *, task: str, way: str) -> Turn:
    """A step and a frame each; "simulator" is dm_control through Shimmy, or Meta-World, as their packages make them."""
    import gymnasium as gym
    from gymnasium.wrappers import AddRenderObservation, Autoreset, RepeatAction

    from aime_gym import make_env
    from aime_gym.wrappers.rendering import require_gl

    require_gl()
    size, repeat, count = 64, 2, 20
    env: gym.Env
    if way != "simulator":
        env = make_env(task, modality="pixels", image_size=size, action_repeat=repeat, quality=way)  # type: ignore[arg-type]
    elif task.endswith("-v3"):
        import metaworld  # noqa: F401 - registers its environments

        view = {"width": size, "height": size, "camera_name": "corner4"}
        env = gym.make("Meta-World/MT1", env_name=task, seed=0, render_mode="rgb_array", **view)
    else:
        import shimmy

        gym.register_envs(shimmy)
        view = {"height": size, "width": size, "camera_id": 0}
        env = gym.make(f"dm_control/{task}-v0", render_mode="rgb_array", render_kwargs=view)
    if way == "simulator":
        env = AddRenderObservation(RepeatAction(env, repeat))
    env = Autoreset(env)
    env.reset()
    return lambda: [env.step(env.action_space.sample()) for _ in range(count)], count


# Starts


def start(options: Options, *, command: list[str]) -> Turn:
    """Start Python, with modules that an earlier start has compiled."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": tempfile.mkdtemp(), "PYTHONDONTWRITEBYTECODE": ""}
    run = partial(subprocess.run, [sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, check=True)
    return run, 1


PRESETS = ("dreamer", "aime", "default")
AGENTS = ("ppo", "bco", "gaifo", "aime")
#: Rows: the unit, and the contestants, of which the first is what the others are compared with.
ROWS: dict[str, tuple[str, dict[str, Callable[[Options], Turn]]]] = {
    **{
        f"phase {phase}, vectors": (
            "update",
            {"authors, rssmo": partial(their_update, phase=phase)}
            | {preset: partial(our_update, preset=preset, phase=phase) for preset in PRESETS},
        )
        for phase in (1, 2)
    },
    "phase 1, pixels": (
        "update",
        {
            "authors, rssmo": partial(their_update, phase=1, side=64),
            "dreamer": partial(our_update, preset="dreamer", phase=1, side=64),
            "default": partial(our_update, preset="default", phase=1, side=64),
            "default, 32 x 32": partial(our_update, preset="default", phase=1, side=32),
        },
    ),
    "collect": ("step", {"1 process": partial(play, workers=1), "2 processes": partial(play, workers=2)}),
    "learned reward": (
        "step",
        {
            "imitation, GAIL": their_gail,
            "GAIL": partial(our_gail, penalty=10.0),
            "GAIL without penalty": partial(our_gail, penalty=0.0),
            "SB3's PPO": plain_ppo,
        },
    ),
    "evaluate": ("step", {agent: partial(evaluation, agent=agent) for agent in AGENTS}),
    "load": ("load", {agent: partial(loading, agent=agent) for agent in AGENTS}),
    "start": (
        "start",
        {
            "import stable_baselines3": partial(start, command=["-c", "import stable_baselines3"]),
            "import aime_gym": partial(start, command=["-c", "import aime_gym"]),
            "import AIMEAgent": partial(start, command=["-c", "from aime_gym.agents import AIMEAgent"]),
            "aime-gym --help": partial(start, command=["-m", "aime_gym", "--help"]),
        },
    ),
    **{
        f"frames, {task}": (
            "frame",
            {way: partial(frames, task=task, way=way) for way in ("simulator", "default", "fast")},
        )
        for task in ("walker-walk", "reach-v3")
    },
}


def main() -> None:
    """Read the command line, and measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--turns", type=int, default=5, help="of each contestant that count")
    parser.add_argument("--authors", type=Path, help="a checkout of their code")
    parser.add_argument("--imitation", type=Path, help="a Python with the package imitation")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.jsonl"))
    parser.add_argument("--table", type=Path, help="print what this file holds, and run nothing")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)  # what a process is started for
    options = parser.parse_args()
    if options.contestant:
        serve(ROWS[options.only[0]][1][options.contestant](options))
        return
    print("| row | contestant | unit | CPU ms | wall ms | CPU ratio | wall ratio |\n" + "| --- " * 7 + "|")
    if options.table:
        for line in options.table.read_text(encoding="utf-8").splitlines():
            show(json.loads(line))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for row in options.only:
        for line in measure(row, options):
            show(line)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def show(line: dict[str, Any]) -> None:
    """Print a line of the table."""
    times = [
        f"{line[clock]:.3g}" if line[clock] < 100 else f"{line[clock]:.0f}" for clock in ("processor_ms", "wall_ms")
    ]
    ratios = [f"{line[clock]:.2f}" for clock in ("processor_ratio", "wall_ratio")]
    print(f"| {' | '.join([line['row'], line['contestant'], line['unit'], *times, *ratios])} |", flush=True)


def serve(turn: Turn) -> None:
    """Take a turn whenever asked to, and tell milliseconds of the processor and of the clock for a unit of work."""
    work, units = turn
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        busy, started = processor_seconds(), time.perf_counter()
        work()
        seconds = processor_seconds() - busy, time.perf_counter() - started
        print(json.dumps([1000 * of_one / units for of_one in seconds]), file=answers, flush=True)


def processor_seconds() -> float:
    """Processor time of this process, of those that it has waited for, and of the server that starts others."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(of_one.ru_utime + of_one.ru_stime for of_one in used)
    with suppress(OSError):  # no server, or a system that does not tell
        fields = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/stat").read_text(encoding="utf-8").split()
        seconds += sum(map(int, fields[13:17])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(row: str, options: Options) -> Iterator[dict[str, Any]]:
    """Let the contestants of a row take turns, and return a line for each."""
    from aime_gym.experiments.provenance import describe_machine, package_versions

    unit, contestants = ROWS[row]
    running: dict[str, Any] = {}
    for name in contestants:
        where = name.partition(",")[0]
        if where not in ("authors", "imitation") or vars(options)[where] is not None:
            command = [options.imitation if where == "imitation" else sys.executable, __file__, *sys.argv[1:]]
            command += ["--only", row, "--contestant", name]
            threads = os.environ | {"OMP_NUM_THREADS": "1"}
            running[name] = subprocess.Popen(command, env=threads, stdin=PIPE, stdout=PIPE, text=True)
    turns: dict[str, list[list[float]]] = {name: [] for name in running}
    for _ in range(1 + options.turns):
        for name, process in running.items():
            print("turn", file=process.stdin, flush=True)
            turns[name].append(json.loads(process.stdout.readline() or "null") or sys.exit(f"{name}: failed"))
    first = next(iter(turns.values()))
    for name, process in running.items():
        process.communicate()
        line = {"row": row, "contestant": name, "unit": unit, "turns": options.turns}
        for part, clock in enumerate(("processor", "wall")):
            ratios = [turn[part] / of_first[part] for turn, of_first in zip(turns[name], first, strict=True)]
            line[f"{clock}_ms"] = round(statistics.median(turn[part] for turn in turns[name][1:]), 4)
            line[f"{clock}_ratio"] = round(statistics.median(ratios[1:]), 3)
        yield line | {"load": os.getloadavg()[0], "machine": describe_machine(), "versions": package_versions()}


if __name__ == "__main__":
    main()
