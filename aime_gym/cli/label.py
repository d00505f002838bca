"""``aime-gym label``: demonstrations with the actions that an agent infers, for any offline library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from aime_gym.cli import shared
from aime_gym.experiments.config import Positive


@shared.verb("write demonstrations with inferred actions")
def label(
    agent: shared.File,
    *,
    demos: shared.Dataset,
    demo_count: Positive | None = None,
    resize: bool = False,
    out: Annotated[Path, "FOLDER|FILE.npz"],
) -> int:
    """Write demonstrations with the actions that a trained agent believes were taken,
    so that any library of offline learning can go on with them: a Minari dataset,
    or one .npz file of transitions end to end, which NumPy alone reads. Every
    episode says how it ends: where the demonstrations do not, it was cut there.

    :param agent: an agent's file, as train and compare write it
    :param demos: a dataset of what is to be imitated
    :param demo_count: demonstrations to take of them (default: all)
    :param resize: whether to resize videos of another size than the agent's images
    :param out: a folder that does not exist yet, or a file that ends in .npz

    Examples:
      aime-gym label reach.zip --demos data/reach-demos --out data/reach-labelled
      aime-gym label reach.zip --demos "videos/*.mp4" --out labelled.npz
    """
    with shared.checks():
        from aime_gym.data import save_minari, save_transitions
        from aime_gym.experiments.saved_agents import label_by_saved

        as_file = out.suffix == ".npz"
        if not as_file and out.exists():
            raise FileExistsError(f"out: {out} exists already: choose another name, or remove it first")
        shared.check_output(out, "out", folder=not as_file)
        loaded, labelled = label_by_saved(agent, demos, demo_count=demo_count, resize=resize)
        if as_file:
            save_transitions(out, labelled)
        else:
            spaces = loaded.observation_space, loaded.action_space
            env = spaces if loaded.known_task is None else loaded.known_task.config.make()
            save_minari(out, labelled, env, metadata={"actions_inferred_by": type(loaded).__name__})
    print(f"{out}: {len(labelled)} episodes, {sum(map(len, labelled))} transitions, actions by {agent.name}")
    return 0
