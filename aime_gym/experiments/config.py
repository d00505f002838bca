"""The data of an experiment: each option is declared once, for suites, the command line and scripts.

The descriptions of their parameters are the help of the command line.

Importing this module loads no PyTorch: the command line reads its flags from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge

#: Policies by name that record play. The episodes from which ``plan2explore`` learns are all that it records.
PLAN2EXPLORE = "plan2explore"
PLAY_POLICIES = ("play", "random", PLAN2EXPLORE)
#: Demonstrations that the expert records.
EXPERT = "expert"
#: Episodes to record unless the user says how many.
PLAY_EPISODES, DEMONSTRATIONS = 600, 20

Positive = Annotated[int, Ge(1)]
Tracker = Literal["tensorboard", "wandb"]


def check_bounds(config: Any) -> None:
    """Check the annotated lower bounds of a configuration.

    :raises ValueError: a number below its bound, by name.
    """
    for name, annotation in get_type_hints(type(config), include_extras=True).items():
        least = lower_bound(annotation)
        value = getattr(config, name)
        if least is not None and value is not None and value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def lower_bound(annotation: Any) -> int | None:
    """Return the least number that an annotation allows, also inside a union with ``None``."""
    for bound in getattr(annotation, "__metadata__", ()):
        if isinstance(bound, Ge):
            return int(bound.ge)  # type: ignore[call-overload]
    bounds = map(lower_bound, getattr(annotation, "__args__", ()))
    return next((bound for bound in bounds if bound is not None), None)


@dataclass(frozen=True)
class DataConfig:
    """Origin of play data and demonstrations: recorded here, or loaded.

    :param play: data with actions to learn the body from: 'play' (recorded here: random actions, held for a while, of
        all sizes; the default), 'random' (uniform), 'plan2explore' (see aime-gym collect --help), or a dataset
    :param play_episodes: episodes to record (default: 600), or to take of each dataset (default: all)
    :param demos: data to imitate: 'expert' (recorded here; the default), a dataset, or videos ('data/*.mp4', or their
        folder). Actions go to oracles only
    :param demo_count: demonstrations to record (default: 20), or to take from a dataset (default: all)
    :param expert: policy that demonstrates: 'scripted' (Meta-World, Pong, Breakout; the default), 'sac:20000' (train
        SB3's sac, ppo or td3 on the task's state for so many steps; or 'dreamer', in imagination), or 'sac:model.zip'
        (a trained SB3 model; such files run code, load only what you trust). Without one, loaded demonstrations give
        the expert's score
    :param resize: whether videos of another size than the task's images are resized to it
    :raises ValueError: numbers below 1; no dataset in a list of them, or what is none.
    """

    play: str | tuple[str, ...] = "play"
    play_episodes: Positive | None = None
    demos: str = EXPERT
    demo_count: Positive | None = None
    expert: str | None = None
    resize: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)
        if isinstance(self.play, tuple) and (not self.play or set(self.play) & set(PLAY_POLICIES)):
            raise ValueError(f"play: expected datasets in a list, got {list(self.play)}")

    @property
    def records_play(self) -> bool:
        """Whether play is recorded here, and not loaded."""
        return self.play in PLAY_POLICIES

    @property
    def records_demos(self) -> bool:
        """Whether demonstrations are recorded here, and not loaded."""
        return self.demos == EXPERT

    @property
    def needs_expert(self) -> bool:
        """Whether an expert acts here: to demonstrate, or to be evaluated."""
        return self.expert is not None or self.records_demos
