"""What a dataset of images takes: resident memory and sampling speed, in memory and memory-mapped.

Episodes of synthetic images are saved with ``save_minari``, one at a time, into a temporary folder. Then a process for
each way of holding them samples batches of sequences: images and actions, as a world model is trained on. All ways take
turns, several rounds; the table has the fastest round of each, by its median batch. One line of JSON is appended to
``--out``.

Resident is what Linux counts as this process's (``VmRSS`` in ``/proc/self/status``): its own memory (``RssAnon``:
arrays, tensors) and the pages of files that it has mapped and touched (``RssFile``: libraries, mapped images). The
system's cache of files, which mapped images are read from, is no part of it: the system gives it up as soon as somebody
needs memory. "Cached" begins with all of the file in the cache; "not cached" with nothing, for a hundred batches.

    python benchmarks/memory.py
    python benchmarks/memory.py --episodes 20 --seconds 2 --rounds 1 --out memory.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from gymnasium import spaces

from aime_gym.data import ActionEncoding, SequenceSampler, TrajectoryDataset, load_trajectories, save_minari
from aime_gym.experiments.provenance import describe_machine, package_versions
from aime_gym.types import Trajectory

LENGTH, IMAGE, ACTIONS = 500, spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Box(-1, 1, (6,), np.float32)
#: Records of a sequence, and sequences of a batch.
SEQUENCE_LENGTH, BATCH = 32, 32
KINDS = {"memory": "in memory", "mapped": "memory-mapped, cached", "not cached": "memory-mapped, not cached"}
#: Sequences of these many batches have to be the same, however the images are held.
COMPARED = 5
#: Batches without a cache; many more would find in it what others before them have read.
NOT_CACHED = 100


class Episodes(Sequence[Trajectory]):
    """Synthetic episodes, each made anew whenever it is asked for: coarse patterns that fade into each other."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | list[Trajectory]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self.count))]
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        scenes = rng.integers(0, 256, (LENGTH // 50 + 2, 16, 16, 3), dtype=np.uint8)
        scene, share = np.divmod(np.arange(LENGTH + 1), 50)
        share = (share / 50).astype(np.float32)[:, None, None, None]
        coarse = (scenes[scene] * (1 - share) + scenes[scene + 1] * share).astype(np.uint8)
        images = coarse.repeat(4, axis=1).repeat(4, axis=2)
        actions = rng.uniform(-1, 1, (LENGTH, *ACTIONS.shape)).astype(np.float32)
        return Trajectory(images, actions, np.zeros(LENGTH, np.float32), truncated=True)


def main() -> None:
    """Read the command line, and measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help=f"of {LENGTH + 1} images of 64 x 64")
    parser.add_argument("--seconds", type=float, default=30, help="of sampling, each way and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.jsonl"))
    parser.add_argument("--part", choices=("save", *KINDS), help=argparse.SUPPRESS)  # what a process is started for
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part:
        play = options.folder / "play"
        measured = save(play, options.episodes) if options.part == "save" else sample(play, options)
        print(json.dumps(measured))
    else:
        run(options)


def run(options: argparse.Namespace) -> None:
    """Measure all parts, print them as a table, and append them to the results."""
    image_bytes = options.episodes * (LENGTH + 1) * int(np.prod(IMAGE.shape))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * image_bytes:
            raise SystemExit(f"{folder}: {image_bytes / 1e9:.1f} GB of images, but only {free / 1e9:.1f} GB are free")
        saved = measure("save", folder, options)
        rounds = [{kind: measure(kind, folder, options) for kind in KINDS} for _ in range(options.rounds)]
    if len({measured.pop("batches_digest") for measured_once in rounds for measured in measured_once.values()}) != 1:
        raise SystemExit("the sequences differ")
    best = {kind: min((each[kind] for each in rounds), key=lambda part: part["batch_seconds"]) for kind in KINDS}

    print("| images | after loading | after sampling | at most | sequences/s | CPU time of a batch |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, label in KINDS.items():
        part = best[kind]
        sizes = (part["loaded"]["VmRSS"], part["sampled"]["VmRSS"], part["sampled"]["VmHWM"])
        speeds = f"{BATCH / part['batch_seconds']:.0f} | {1000 * part['batch_cpu_seconds']:.1f} ms"
        print(f"| {label} | {' | '.join(f'{size / 1e9:.2f} GB' for size in sizes)} | {speeds} |")
    line = {
        "episodes": options.episodes,
        "image_bytes": image_bytes,
        "horizon": SEQUENCE_LENGTH,
        "batch": BATCH,
        "seconds": options.seconds,
        "save": saved,
        "rounds": rounds,
        "versions": package_versions(),
        "machine": {**describe_machine(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def measure(part: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own."""
    arguments = ["--part", part, "--folder", folder]
    for name in ("episodes", "seconds", "threads"):
        arguments += [f"--{name}", str(getattr(options, name))]
    process = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    measured = json.loads(process.stdout)
    print(part, measured, file=sys.stderr)
    return measured


def save(folder: Path, episodes: int) -> dict[str, Any]:
    """Save the episodes, one at a time."""
    started = time.perf_counter()
    save_minari(folder, Episodes(episodes), (IMAGE, ACTIONS))
    with data_file(folder).open("rb") as file:
        os.fsync(file.fileno())  # only what is on disk can be dropped from the cache
    return {
        "seconds": time.perf_counter() - started,
        "saved": resident(),
        "file_bytes": data_file(folder).stat().st_size,
    }


def sample(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Load the episodes, and sample sequences for some time."""
    if options.part == "not cached":
        with data_file(folder).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    elif options.part == "mapped":  # the system may have dropped it meanwhile
        with data_file(folder).open("rb") as file:
            while file.read(2**20):
                pass
    bare, started = resident(), time.perf_counter()
    trajectories = list(Episodes(options.episodes)) if options.part == "memory" else load_trajectories(folder)
    dataset = TrajectoryDataset(trajectories, ActionEncoding(ACTIONS))
    loading, loaded = time.perf_counter() - started, resident()
    generator = torch.Generator().manual_seed(0)
    sampler = SequenceSampler(dataset, sequence_length=SEQUENCE_LENGTH, batch_size=BATCH, generator=generator)
    digest, times = hashlib.blake2b(digest_size=16), []
    at_most = NOT_CACHED if options.part == "not cached" else sys.maxsize
    started, cpu_started = time.perf_counter(), time.process_time()
    while len(times) < COMPARED or (time.perf_counter() - started < options.seconds and len(times) < at_most):
        before = time.perf_counter()
        images = sampler.sample().observations["observation"]
        times.append(time.perf_counter() - before)
        if len(times) <= COMPARED:
            digest.update(images.numpy())
        del images
    return {
        "loading_seconds": loading,
        "bare": bare,
        "loaded": loaded,
        "sampled": resident(),
        "batches": len(times),
        "batch_seconds": float(np.median(times)),
        "mean_batch_seconds": float(np.mean(times)),
        "batch_cpu_seconds": (time.process_time() - cpu_started) / len(times),
        "batches_digest": digest.hexdigest(),
    }


def data_file(folder: Path) -> Path:
    """Where Minari keeps the episodes."""
    return folder / "data" / "main_data.hdf5"


def resident() -> dict[str, int]:
    """Bytes of this process: now, at most so far, and what kinds of pages they are now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}


if __name__ == "__main__":
    main()
