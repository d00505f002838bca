"""What an update of a world model on pixels costs: aime_gym's against that of AIME-v2's authors.

An update is all of it: draw sequences from a dataset in memory, the loss, its gradient, clipping, a step of Adam. Each
contestant runs in a process of its own, and they take turns, an update each, so that whatever else the machine does
hits all of them; each figure is the median over turns, of time that passed and of processor time, with the peak memory
of the process. One line of JSON for each contestant and size is appended to ``--out``.

The authors' code is that of https://github.com/argmax-ai/aime-v2, imported from a checkout: their model ``rssmo`` with
the losses that their training has (its inverse model learns in the same update; there is a line without it). Their data
loader's workers are left out: sequences are drawn where the update runs, as by a loader without workers.

    python benchmarks/updates.py --authors ~/aime-v2 --sizes 8x16 50x50
    python benchmarks/updates.py --table benchmarks/results/updates.jsonl
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from aime_gym.data import ActionEncoding, SequenceSampler, TrajectoryDataset
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.models.config import PRESETS
from aime_gym.models.rssm import RecordedActions
from aime_gym.models.world_model import WorldModel
from aime_gym.training.optimizer import Optimizer
from aime_gym.types import SequenceBatch, Trajectory

ACTIONS, EPISODES, RECORDS = 6, 20, 101
LEARNING_RATE, MAX_GRAD_NORM = 3e-4, 100.0
PARTS = ("draw", "loss", "step")


class Contestant(NamedTuple):
    """Whose update, with which model, on frames of which side."""

    name: str
    preset: str
    side: int


class Update(NamedTuple):
    """The parts of an update, each done after the other."""

    draw: Callable[[], Any]
    loss: Callable[[Any], torch.Tensor]
    step: Callable[[torch.Tensor], Any]


OURS, THEIRS = "aime_gym", "authors"
CONTESTANTS = (
    Contestant(OURS, "dreamer", 64),
    Contestant(THEIRS, "rssmo", 64),
    Contestant(THEIRS, "rssmo, no inverse model", 64),
    Contestant(OURS, "default", 64),
    Contestant(OURS, "default", 32),
)


def main() -> None:
    """Read the command line, and measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, help="a checkout of their code; without it, aime_gym alone")
    parser.add_argument("--sizes", nargs="+", default=["8x16"], metavar="BxL", help="sequences times records of each")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2, metavar="N", help="first updates that do not count")
    parser.add_argument("--threads", type=int, help="default: as PyTorch chooses")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/updates.jsonl"))
    parser.add_argument("--table", type=Path, help="print what this file holds, and run nothing")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text(encoding="utf-8").splitlines()]))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        batch, length = map(int, size.split("x"))
        lines = measure(options, batch, length)
        with options.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        print(table(lines), flush=True)


def measure(options: argparse.Namespace, batch: int, length: int) -> list[dict[str, Any]]:
    """Let the contestants take turns, and return a line for each."""
    context = multiprocessing.get_context("fork")  # before PyTorch has threads
    running = []
    for contestant in CONTESTANTS:
        if contestant.name == OURS or options.authors is not None:
            ours, its = context.Pipe()
            arguments = (contestant, its, batch, length, options.threads, options.authors)
            process = context.Process(target=contest, args=arguments, daemon=True)
            process.start()
            its.close()
            running.append((contestant, process, ours, []))
    for turn in range(options.warm_up + options.turns):
        for _, _, pipe, turns in running:
            pipe.send("update")
            times = pipe.recv()
            if turn >= options.warm_up:
                turns.append(times)
    lines = []
    for contestant, process, pipe, turns in running:
        pipe.send("end")
        about = pipe.recv()
        process.join()
        totals = [1000 * sum(seconds) for seconds, _ in turns]
        lines.append(
            {
                **contestant._asdict(),
                "batch": batch,
                "length": length,
                "turns": len(turns),
                "milliseconds": round(statistics.median(totals), 1),
                "least": round(min(totals), 1),
                "greatest": round(max(totals), 1),
                "processor_milliseconds": round(1000 * statistics.median(processor for _, processor in turns), 1),
                **{
                    part: round(1000 * statistics.median(seconds[index] for seconds, _ in turns), 1)
                    for index, part in enumerate(PARTS)
                },
                **about,
                "versions": package_versions(),
            }
        )
    return lines


def contest(
    contestant: Contestant, pipe: Any, batch: int, length: int, threads: int | None, authors: Path | None
) -> None:
    """Make updates whenever asked to, and tell how many seconds the parts of each took."""
    torch.manual_seed(0)
    if threads is not None:
        torch.set_num_threads(threads)
    if contestant.name == OURS:
        update = our_update(contestant, batch, length)
    else:
        assert authors is not None
        update = their_update(contestant, batch, length, authors)
    while pipe.recv() == "update":
        stamps, busy, value = [time.perf_counter()], time.process_time(), None
        for part in update:
            value = part() if part is update.draw else part(value)
            stamps.append(time.perf_counter())
        pipe.send(([after - before for before, after in pairwise(stamps)], time.process_time() - busy))
    pipe.send({"peak_mib": peak_memory(), "machine": describe_machine()})


def our_update(contestant: Contestant, batch: int, length: int) -> Update:
    """As ``pretrain`` makes them."""
    from gymnasium import spaces

    episodes = [Trajectory(frames, actions) for frames, actions in recorded(contestant.side)]
    encoding = ActionEncoding(spaces.Box(-1, 1, (ACTIONS,), np.float32))
    dataset, generator = TrajectoryDataset(episodes, encoding), torch.Generator().manual_seed(0)
    sampler = SequenceSampler(dataset, sequence_length=length, batch_size=batch, generator=generator)
    model = WorldModel(PRESETS[contestant.preset], {"observation": (contestant.side, contestant.side, 3)}, ACTIONS)
    optimizer = Optimizer([model], LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM)

    def loss(drawn: SequenceBatch) -> torch.Tensor:
        noise = torch.randn(*drawn.valid.shape, model.config.stoch, generator=generator)
        return model.evidence(drawn.observations, RecordedActions(drawn.prev_actions), noise, valid=drawn.valid).loss

    return Update(sampler.sample, loss, optimizer.step)


def their_update(contestant: Contestant, batch: int, length: int, checkout: Path) -> Update:
    """As their ``train_model_only.py`` makes them, on a processor."""
    sys.path.insert(0, str(checkout))
    _stand_in()
    from aimev2.data import SequenceDataset
    from aimev2.models.ssm import ssm_classes

    with tempfile.TemporaryDirectory() as folder:
        for number, (frames, actions) in enumerate(recorded(contestant.side)):
            marks = np.zeros(RECORDS, np.float32)
            first, last = marks.copy(), marks.copy()
            first[0] = last[-1] = 1
            pre_action = np.concatenate([np.zeros_like(actions[:1]), actions])
            np.savez(
                Path(folder) / f"{number}.npz",
                image=frames,
                pre_action=pre_action,
                is_first=first,
                is_last=last,
                is_terminal=marks,
            )
        dataset = SequenceDataset(folder, length, overlap=True, lazy=False)
    visual = {"name": "cnn_ha", "width": 32}
    model = ssm_classes["rssmo"](
        [("image", (contestant.side, contestant.side), visual)],
        [
            ("image", (contestant.side, contestant.side), {**visual, "sigmoid": False}),
            ("is_terminal", 1, {"name": "binary", "hidden_size": 128, "hidden_layers": 2}),
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
        idm_mode="none" if "no inverse model" in contestant.preset else "detach",
        min_std=0.1,
    )
    adam = model.get_optimizor({"name": "Adam", "lr": LEARNING_RATE})

    def step(loss: torch.Tensor) -> None:
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM).item()
        adam.step()

    return Update(lambda: dataset.sample(batch), lambda data: model(data, data["pre_action"])[2], step)


def _stand_in() -> None:
    """What their modules import and the update does not need; resizing leaves frames of 64 x 64 as they are."""

    class Resize(torch.nn.Identity):
        def __init__(self, size: int) -> None:
            assert size == 64
            super().__init__()

    for name, content in (
        ("einops", {"rearrange": None}),
        ("omegaconf", {"OmegaConf": None}),
        ("torchvision", {"transforms": ModuleType("transforms")}),
    ):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)
            if name == "torchvision":
                vars(content["transforms"])["Resize"] = Resize


def recorded(side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames (T + 1, side, side, 3) and actions (T, A) of some episodes; what is in them costs nothing."""
    generator = np.random.default_rng(0)
    return [
        (
            generator.integers(0, 256, (RECORDS, side, side, 3), np.uint8),
            generator.uniform(-1, 1, (RECORDS - 1, ACTIONS)).astype(np.float32),
        )
        for _ in range(EPISODES)
    ]


def peak_memory() -> int | None:
    """The most memory that this process ever had, in MiB; ``None`` where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def table(lines: list[dict[str, Any]]) -> str:
    """The figures as a table; the last column is how many times as long the authors' update of that size takes."""
    rows = [
        "| code | model | side | sequences | ms (least, greatest) | draw, loss, step | CPU ms | peak MiB | authors' |",
        "| --- " * 9 + "|",
    ]
    for line in lines:
        size = line["batch"], line["length"]
        theirs = [o for o in lines if (o["batch"], o["length"]) == size and o["preset"] == "rssmo"]
        cells = (
            line["name"],
            line["preset"],
            f"{line['side']}",
            f"{size[0]} x {size[1]}",
            f"{line['milliseconds']:.0f} ({line['least']:.0f}, {line['greatest']:.0f})",
            ", ".join(f"{line[part]:.0f}" for part in PARTS),
            f"{line['processor_milliseconds']:.0f}",
            f"{line['peak_mib']}",
            f"{theirs[-1]['milliseconds'] / line['milliseconds']:.2f}" if theirs else "",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
