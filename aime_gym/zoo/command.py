"""The command line: ``python -m aime_gym.zoo train | enjoy``, in front of RL Zoo's own."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import gymnasium as gym

from aime_gym.agents.registry import AGENTS
from aime_gym.config import nearest_names
from aime_gym.zoo.registration import hyperparams_file, register_agents
from aime_gym.zoo.run_settings import safe_settings

_PROGRAM = "python -m aime_gym.zoo"

_USAGE = f"""\
usage: {_PROGRAM} train --algo AGENT --env ENV_ID --demos DATA [--play DATA] [any option of rl_zoo3 train]
       {_PROGRAM} enjoy --algo AGENT --env ENV_ID [-f FOLDER] [any option of rl_zoo3 enjoy]

RL Zoo (rl_zoo3) with the agents of aime_gym ({", ".join(AGENTS)}) among its algorithms, beside its own.
`{_PROGRAM} train --help` has all options.
"""

_TRAIN_HELP = """\
For an agent of aime_gym, beside the options below:

  --demos DATA       what to imitate: a Minari id, or the path of a dataset (`aime-gym collect` records one)
  --play DATA        data with actions to learn the body from; without it, random play is collected first

These agents learn from data: n_timesteps is 0, and where the options below count steps, they count gradient updates:
--eval-freq (default: 1000), --save-freq, the timesteps in evaluations.npz, the x axis of plots. Those that imitate in
their environment (gaifo, gail, imrl, pmi-il, ilpo) count its steps there, and take -n of them, or as many as their
configuration says.
--hyperparams takes the agent's hyper-parameters and its constructor's: model_updates:1000 "checkpoint_dir:'runs/ck'".
With checkpoint_dir and a --seed, the same command goes on where it was interrupted.
With -i AGENT.zip, that agent imitates --demos anew; with --play, it goes through pretrain again before.
--gym-packages may register agents, too.

"""

_ENJOY_HELP = """\
For an agent of aime_gym, --folder is logs by default, and --load-checkpoint takes a number of gradient updates.
Without a screen: --no-render. The settings in a run's folder are read without running code: wrappers of other packages
need --gym-packages. Files of SB3's own algorithms are pickles: load only what you trust.

"""

_HELP = {"train": _TRAIN_HELP, "enjoy": _ENJOY_HELP}

#: The agents take thousands of updates; RL Zoo's own default is made for millions of steps.
_EVAL_FREQ = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 0, or 130 after Ctrl-C.

    :raises SystemExit: with 2 and one line on stderr, for input that no work was done for.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"]):
        print(_USAGE, end="")  # noqa: T201
        return 0
    verb, program = (given[0], f"{_PROGRAM} {given[0]}") if given else ("nothing", _PROGRAM)
    if verb not in _HELP:
        _end(_PROGRAM, f"expected train or enjoy, got {verb} (see {_PROGRAM} --help)")
    try:
        return _run(verb, given[1:])
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except _BadCommand as error:
        _end(program, str(error))


class _BadCommand(Exception):
    """Input that ends in one line."""


def _run(verb: str, arguments: Sequence[str]) -> int:
    try:
        options, others = _parser(verb).parse_known_args(arguments)
        for module in options.gym_packages:
            import_module(module)  # before RL Zoo does it, which reads the names of its algorithms first
        register_agents()
        _check(options)
    except (ValueError, ImportError) as error:
        raise _BadCommand(str(error)) from error
    if {"-h", "--help"} & set(others):
        print(_HELP[verb], end="")  # noqa: T201
    # What is given comes after the defaults, and wins.
    defaults = _defaults(verb, options.algo) if options.algo in AGENTS else []
    packages = ["--gym-packages", *options.gym_packages] if options.gym_packages else []
    _hand_over(verb, options, [*packages, "--algo", options.algo, "--env", options.env, *defaults, *others])
    return 0


def _defaults(verb: str, algo: str) -> list[str]:
    if verb == "enjoy":
        return ["--folder", "logs"]
    return ["--conf-file", str(hyperparams_file(algo)), "--eval-freq", str(_EVAL_FREQ)]


def _hand_over(verb: str, options: argparse.Namespace, arguments: list[str]) -> None:
    """Run RL Zoo's script, which reads the process's arguments."""
    from aime_gym.zoo.experiment import BadInput, ImitationExperiment

    script: Any = import_module(f"rl_zoo3.{verb}")
    before = (sys.argv, script.ExperimentManager)
    sys.argv = [f"{_PROGRAM} {verb}", *arguments]
    bad_input: tuple[type[Exception], ...] = ()
    settings: AbstractContextManager[None] = nullcontext()
    if options.algo in AGENTS and verb == "train":
        script.ExperimentManager = partial(ImitationExperiment, demos=options.demos, play=options.play)
        bad_input = (BadInput,)
    elif options.algo in AGENTS:
        bad_input = (ValueError, OSError, AssertionError)  # a run or a file that is not there
    if verb == "enjoy":
        bad_input = bad_input or (ValueError,)
        modules = (script, import_module("rl_zoo3.utils"))
        settings = safe_settings(modules, options.gym_packages, keep_normalize=options.algo not in AGENTS)
    try:
        with settings:
            getattr(script, verb)()
    except bad_input as error:
        raise _BadCommand(str(error)) from error
    finally:
        sys.argv, script.ExperimentManager = before


def _check(options: argparse.Namespace) -> None:
    """Check input that RL Zoo would answer with a traceback, or with a page."""
    from rl_zoo3.utils import ALGOS

    if options.algo not in ALGOS:
        raise ValueError(f"--algo: unknown algorithm {options.algo!r}; {nearest_names(options.algo, ALGOS)}")
    if options.env not in gym.registry:
        near = [name for name in gym.registry if name.startswith(f"aime_gym/{options.env}-")]
        near = near or difflib.get_close_matches(options.env, gym.registry, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"--env: expected the id of a registered environment, got {options.env!r}{hint}")
    for name in ("demos", "play"):
        if options.algo not in AGENTS and getattr(options, name, None) is not None:
            raise ValueError(f"--{name}: expected an agent that learns from data, got {options.algo}")


def _parser(verb: str) -> argparse.ArgumentParser:
    """Return a parser of the options that are needed before RL Zoo reads all of them."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--gym-packages", nargs="+", default=[])
    if verb == "train":
        parser.add_argument("--demos")
        parser.add_argument("--play")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _end(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
