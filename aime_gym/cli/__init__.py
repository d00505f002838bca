"""The command line, ``aime-gym``, also as ``python -m aime_gym``.

One module for each verb. Whatever loads PyTorch or a simulator is imported by the verb's work, not by its help: --help
answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import aime_gym
from aime_gym.cli.beliefs import beliefs
from aime_gym.cli.benchmark import benchmark
from aime_gym.cli.collect import collect
from aime_gym.cli.compare import compare
from aime_gym.cli.diagnose import diagnose
from aime_gym.cli.evaluate import evaluate
from aime_gym.cli.label import label
from aime_gym.cli.names import list_, options
from aime_gym.cli.report import report
from aime_gym.cli.shared import Verbs, error_line
from aime_gym.cli.train import train
from aime_gym.cli.tune import tune

_PROGRAM = Verbs(
    "aime-gym",
    commands=[compare, collect, train, evaluate, diagnose, beliefs, label, benchmark, report, tune, list_, options],
    help="Imitation from demonstrations without actions, in any Gymnasium environment.",
    epilog="`aime-gym VERB --help` has examples. A first one: aime-gym compare reach-v3",
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB",
)
click.version_option(aime_gym.__version__, message="%(version)s", help="Show the version and exit.")(_PROGRAM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 0, 1 where a job failed, or 130 after Ctrl-C.

    :raises SystemExit: with 2 and one line on stderr, for input that no work was done for.
    """
    try:
        status = _PROGRAM.main(arguments, prog_name="aime-gym", standalone_mode=False)
    except click.ClickException as error:
        print(error_line(error), file=sys.stderr)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("aime-gym: interrupted", file=sys.stderr)
        return 130
    return status or 0
