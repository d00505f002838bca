"""Pieces that the verbs share: flags of the task and of the data, errors in one line, and checks of what is written."""

from __future__ import annotations

import functools
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import click

from aime_gym.config import nearest_names
from aime_gym.experiments.config import DataConfig, TaskConfig, lower_bound
from aime_gym.wrappers.rendering import RenderingError

if TYPE_CHECKING:
    from rich.console import Console

_Function = TypeVar("_Function", bound=Callable[..., Any])


# Help and errors


class Verb(click.Command):
    """A command whose examples are printed as they are, and whose options stand in groups."""

    def __init__(self, *arguments: Any, help: str, **options: Any) -> None:  # noqa: A002 - the name that click has
        text, start, examples = inspect.cleandoc(help).partition("\n\nExamples")
        super().__init__(*arguments, **options | {"help": text, "epilog": f"{start}{examples}".strip()})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"The task": [], "The data": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups[getattr(parameter, "group", "Options")].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=24)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, _one_value_each(args, {"--agents"}))
        except click.UsageError as error:
            error.ctx = ctx
            raise


def verb(short_help: str) -> Any:
    """Return a decorator that makes a function a verb: its docstring is the help, with the examples at its end."""
    return click.command(cls=Verb, short_help=short_help)


class Verbs(click.Group):
    """The program: verbs in the order of a first use, and one line for a name that it does not know."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"VERB: unknown verb {args[0]!r}; {nearest_names(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise click.UsageError(f"VERB: expected one of {', '.join(self.commands)}, got none", ctx)
        return super().parse_args(ctx, args)


def _one_value_each(arguments: list[str], options: set[str]) -> list[str]:
    """Repeat an option before each of its values: ``--agents aime bco`` as ``--agents aime --agents bco``."""
    expanded: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else None
        elif option is not None and expanded[-1] != option:
            expanded.append(option)
        expanded.append(argument)
    return expanded


def error_line(error: click.ClickException) -> str:
    """Return an error in one line, in this package's grammar."""
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = f"{error.option_name}: unknown option"
        message += f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else ""
    elif isinstance(error, click.BadOptionUsage):
        message = f"{error.option_name}: expected a value, got none"
    elif isinstance(error, click.MissingParameter) and error.param is not None:
        message = f"{_shown_name(error.param)}: expected a value, got none"
    elif isinstance(error, click.BadParameter) and error.param is not None:
        message = f"{_shown_name(error.param)}: {error.message}"
    context = getattr(error, "ctx", None)
    program = "aime-gym" if context is None else context.command_path
    return f"{program}: error: {' '.join(message.split())}"


@contextmanager
def checks() -> Iterator[None]:
    """Turn errors of what the user gave into one line and exit status 2; no work is done in here.

    :raises click.UsageError: for any of them.
    """
    try:
        yield
    except (ValueError, OSError, NotImplementedError, ImportError, RenderingError) as error:
        raise click.UsageError(_in_options(str(error)), click.get_current_context()) from error


def _in_options(message: str) -> str:
    """Name arguments as the command line does: ``demo_count`` is ``--demo-count`` here."""
    message = re.sub(r"position_(indices|keys)", "--positions", message)
    name = re.match(r"[a-z_]+(?=[:\[])", message)
    shown = {parameter.name: _shown_name(parameter) for parameter in click.get_current_context().command.params}
    shown |= {"id": "ENV_ID", "checkpoint_dir": "--checkpoint"}
    if name is None or name[0] not in shown:
        return message
    return shown[name[0]] + message[name.end() :]


def _shown_name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return (parameter.metavar or str(parameter.name)).strip("[]")


# Flags


class Number(click.ParamType):
    """A number, of at least ``least``."""

    name = "N"

    def __init__(self, least: int | None = None, kind: type = int) -> None:
        self._least, self._kind = least, kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self._kind(value)
        except ValueError:
            self.fail(f"expected a {'whole ' * (self._kind is int)}number, got {value!r}", param, ctx)
        if self._least is not None and number < self._least:
            self.fail(f"expected at least {self._least}, got {number}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name


class _Positions(click.ParamType):
    name = "positions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = value if isinstance(value, tuple) else tuple(filter(None, value.split(",")))
        return tuple(map(int, names)) if all(str(name).isdigit() for name in names) else names


class _Option(click.Option):
    """An option in a group of the help."""

    def __init__(self, names: list[str], group: str, **options: Any) -> None:
        super().__init__(names, **options)
        self.group = group


_METAVARS = {
    "modality": "MODALITY",
    "positions": "A,B,...",
    "quality": "QUALITY",
    "play": "play|random|plan2explore|PATH|ID",
    "demos": "expert|PATH|ID",
    "expert": "EXPERT",
}


def _parameter_texts(config: type) -> dict[str, str]:
    """Return the descriptions of parameters in a docstring."""
    described = re.findall(r":param (\w+): (.*?)(?=\n:|\Z)", inspect.getdoc(config) or "", re.DOTALL)
    return {name: " ".join(text.split()) for name, text in described}


def _config_options(config: type, argument: str, group: str, default_env: str | None = None) -> Any:
    """Return a decorator that adds a flag for each field of a configuration, and hands on the configuration."""
    hints = get_type_hints(config, include_extras=True)
    texts = _parameter_texts(config)

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def with_config(**options: Any) -> Any:
            values = {field.name: options.pop(field.name) for field in fields(config)}
            with checks():
                made = config(**values)
            return function(**{argument: made}, **options)

        decorated: Any = with_config
        for field in reversed(fields(config)):
            hint = hints[field.name]
            text = texts[field.name]
            if field.name == "env_id":
                required = default_env is None
                text += "" if required else f" (default: {default_env})"
                metavar = "ENV_ID" if required else "[ENV_ID]"
                decorated = click.argument(
                    "env_id", metavar=metavar, required=required, default=default_env, help=text
                )(decorated)
                continue
            kind: Any = Number(lower_bound(hint)) if _is_number(hint) else str
            if field.name == "positions":
                kind = _Positions()
            name = f"--{field.name.replace('_', '-')}"
            look: dict[str, Any] = {"cls": _Option, "group": group, "metavar": _METAVARS.get(field.name), "help": text}
            decorated = click.option(name, type=kind, default=field.default, **look)(decorated)
        return decorated

    return decorate


def _is_number(annotation: Any) -> bool:
    return annotation is int or any(map(_is_number, get_args(annotation)))


def task_options(default_env: str | None = None) -> Any:
    """Return a decorator: ENV_ID and the flags of a task become the argument ``task``."""
    return _config_options(TaskConfig, "task", "The task", default_env)


def data_options(function: _Function) -> _Function:
    """Make the flags of the data the argument ``data``."""
    return _config_options(DataConfig, "data", "The data")(function)


def number_option(name: str, text: str, *, least: int | None = 1, default: int | None = None, kind: type = int) -> Any:
    """Return an option with a number."""
    text = text if default is None else f"{text} (default: {default})"
    return click.option(name, type=Number(least, kind), default=default, help=text)


seed_option = number_option("--seed", "the same seed, the same run", least=0, default=0)
agent_file = click.argument(
    "agent",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="an agent's file, as train and compare write it",
)


def path_option(name: str, metavar: str, text: str, *, required: bool = False) -> Any:
    """Return an option with a path."""
    kind = click.Path(path_type=Path)
    return click.option(name, type=kind, metavar=metavar, required=required, help=text)


# Output


def check_output(path: Path | None, argument: str, *, folder: bool = False) -> None:
    """Try to write where the results will go, and leave nothing there.

    :param folder: whether ``path`` is a folder, and not a file.
    :raises ValueError: it cannot be written.
    """
    if path is None:
        return
    target = path if folder else path.parent
    kind = "folder" if folder else "file"
    if not folder and path.is_dir():
        raise ValueError(f"{argument}: expected a file, got the folder {path}")
    missing = [place for place in (target, *target.parents) if not place.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target, prefix=f".{path.name[:200]}"):
            pass
        if not folder and path.exists():
            path.open("ab").close()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{argument}: expected a {kind} that can be written, got {path} ({reason})") from error
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def interrupted_name(path: Path) -> Path:
    """Return a free name that says that the work was interrupted: ``reach.zip`` as ``reach-interrupted.zip``."""
    names = (path.with_name(f"{path.stem}-interrupted{number}{path.suffix}") for number in ("", *range(2, 1000)))
    return next(name for name in names if not name.exists())


def console() -> Console:
    """Return a console that leaves room for tables where a file, and no terminal, decides the width."""
    from rich.console import Console

    made = Console()
    if not made.is_terminal:
        made.width = 130
    return made
