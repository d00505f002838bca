"""Pieces that the verbs share: a function as a verb, errors in one line, and checks of what is written."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from annotated_types import Ge

from aime_gym.config import nearest_names, parameter_texts
from aime_gym.experiments.config import DataConfig, lower_bound
from aime_gym.tasks import TaskConfig
from aime_gym.wrappers.rendering import RenderingError

# Types of the parameters of verbs: a text beside the type is the placeholder of a value in the help, or a short flag.
File = Annotated[Path, "FILE"]
Folder = Annotated[Path, "FOLDER"]
Dataset = Annotated[str, "PATH|ID"]
Seed = Annotated[int, Ge(0)]

#: Placeholders of the fields of configurations.
_PLACEHOLDERS = {
    "env_id": "ENV_ID",
    "modality": "MODALITY",
    "positions": "A,B,...",
    "camera": "CAMERA",
    "env_kwargs": "NAME=VALUE,...",
    "quality": "QUALITY",
    "play": "play|random|plan2explore|PATH|ID",
    "demos": "expert|PATH|ID",
    "expert": "EXPERT",
}
#: Options of a task that the user gave, by name, for a verb whose agent knows the others.
ChosenTask = Annotated[dict[str, Any], TaskConfig]

#: Configurations whose fields are options of a verb, and their titles in its help.
_GROUPS: dict[Any, str] = {
    TaskConfig: "The task",
    ChosenTask: "The task (default: the agent's)",
    DataConfig: "The data",
}


# A function as a verb


def verb(short_help: str) -> Callable[[Callable[..., int]], Verb]:
    """Return a decorator that makes a function a verb.

    Positional parameters are arguments and the others options, as are the fields of a configuration. The docstring is
    the help: a text, descriptions of the parameters, and examples at its end.
    """
    return lambda function: Verb(function, short_help)


class Verb(click.Command):
    """A command that is a function: its examples are printed as they are, and its options stand in groups."""

    def __init__(self, function: Callable[..., int], short_help: str) -> None:
        hints = get_type_hints(function, include_extras=True)
        self._function = function
        self._configs = {name: hint for name, hint in hints.items() if hint in _GROUPS}
        text, start, examples = (inspect.getdoc(function) or "").partition("\n\nExamples")
        super().__init__(
            function.__name__.rstrip("_"),
            params=list(_parameters(function)),
            callback=self._call,
            help=text.partition("\n\n:param")[0],
            epilog=f"{start}{examples}".strip(),
            short_help=short_help,
        )

    def _call(self, **values: Any) -> int:
        if ":" in (values.get("env_id") or ""):  # "module:Id-v0", a module that may stand in the current folder
            sys.path.append(str(Path.cwd()))
        for name, config in self._configs.items():
            chosen = {field.name: values.pop(field.name) for field in fields(_config_class(config))}
            if config == ChosenTask:
                values[name] = {option: value for option, value in chosen.items() if value is not None}
                continue
            with checks():
                values[name] = config(**chosen)
        return self._function(**values)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*_GROUPS.values(), "Options")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
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


class Verbs(click.Group):
    """The program: verbs in the order of a first use, and one line for a name that it does not know."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"VERB: unknown verb {args[0]!r}; {nearest_names(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])


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
    except Exception as error:
        from gymnasium.error import DependencyNotInstalled  # here, since --help has to be fast

        known = (ValueError, OSError, NotImplementedError, ImportError, RenderingError, DependencyNotInstalled)
        if not isinstance(error, known):
            raise
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


class _Choice(click.Choice[str]):
    """Type of an option whose value is one of some names, which the shell completes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            self.fail(f"expected one of {', '.join(self.choices)}, got {value!r}", param, ctx)
        return value


class _Positions(click.ParamType):
    name = "positions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = value if isinstance(value, tuple) else tuple(filter(None, value.split(",")))
        return tuple(map(int, names)) if all(str(name).isdigit() for name in names) else names


class _Camera(click.ParamType):
    name = "camera"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return int(value) if str(value).isdigit() else value


class _Pairs(click.ParamType):
    """Type of an option such as ``gravity=-5,continuous=true``: values are JSON, or text."""

    name = "pairs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        pairs = {}
        for entry in value.split(",") if isinstance(value, str) else ():
            key, equals, text = entry.partition("=")
            if not (key and equals):
                self.fail(f"expected name=value, got {entry!r}", param, ctx)
            try:
                pairs[key] = json.loads(text)
            except ValueError:
                pairs[key] = text
        return pairs or value


class _Option(click.Option):
    """An option in a group of the help."""

    def __init__(self, names: list[str], group: str, **settings: Any) -> None:
        super().__init__(names, **settings)
        self.group = group


def _config_class(hint: Any) -> Any:
    """Return the configuration that a group of options belongs to."""
    return TaskConfig if hint == ChosenTask else hint


def _parameters(signed: Callable[..., Any], group: str = "Options", config: Any = None) -> Iterator[click.Parameter]:
    """Yield the arguments and the options for the parameters of a function, or for the fields of a configuration.

    :param config: object with the defaults of its class's options, if they are not those of the class.
    """
    hints = get_type_hints(signed, include_extras=True)
    texts = parameter_texts(signed)
    for name, parameter in inspect.signature(signed).parameters.items():
        default = getattr(config, name, parameter.default)
        if hints[name] in _GROUPS:
            config_class = _config_class(hints[name])
            if hints[name] == ChosenTask:
                default = SimpleNamespace(**dict.fromkeys(field.name for field in fields(config_class)))
            yield from _parameters(config_class, _GROUPS[hints[name]], default)
        elif name == "env_id" or (signed not in _GROUPS and parameter.kind is not parameter.KEYWORD_ONLY):
            yield _parameter(name, hints[name], texts.get(name, ""), default)
        else:
            yield _parameter(name, hints[name], texts.get(name, ""), default, group)


def _parameter(name: str, hint: Any, text: str, default: Any, group: str | None = None) -> click.Parameter:
    """Return an option in a group of the help, or an argument, which has none."""
    kind = hint
    notes: list[Any] = []
    while get_origin(kind) in (Annotated, Union, UnionType):
        notes += getattr(kind, "__metadata__", ())
        kind = next(part for part in get_args(kind) if part is not NoneType)
    short = [note for note in notes if str(note).startswith("-")]
    placeholder = next((note for note in notes if isinstance(note, str) and note not in short), _PLACEHOLDERS.get(name))
    several = get_origin(kind) is tuple and name != "positions"
    kind = get_args(kind)[0] if several else kind
    if default not in (None, inspect.Parameter.empty) and (group is None or type(default) in (int, float)):
        text += f" (default: {default})"
    types: dict[Any, Any] = {
        int: Number(lower_bound(hint)),
        float: Number(lower_bound(hint), float),
        Path: click.Path(path_type=Path),
    }
    required = default is inspect.Parameter.empty
    settings: dict[str, Any] = {"help": text} | ({"required": True} if required else {"default": default})
    if kind is bool:
        return _Option([f"--{name.replace('_', '-')}"], group or "", is_flag=True, **settings)
    special: dict[str, Any] = {"positions": _Positions(), "camera": _Camera(), "env_kwargs": _Pairs()}
    settings["type"] = special.get(name) or types.get(kind, str)
    if get_origin(kind) is Literal:
        settings["type"] = _Choice(get_args(kind))
    if group is None:
        placeholder = placeholder if required else f"[{placeholder}]"
        return click.Argument([name], metavar=placeholder, nargs=-1 if several else 1, **settings)
    names = [name, f"--{name.replace('_', '-')}", *short]
    return _Option(names, group, metavar=placeholder, multiple=several, **settings)


# Output


def print_definitions(title: str, definitions: Iterable[tuple[str, str]]) -> None:
    """Print names and what they mean, in 80 columns."""
    formatter = click.HelpFormatter(width=80)
    with formatter.section(title):
        formatter.write_dl(list(definitions), col_max=24)
    click.echo(formatter.getvalue())


def check_output(path: Path | None, argument: str, *, folder: bool = False) -> None:
    """Try to write where the results will go, and leave nothing there.

    :param folder: whether ``path`` is a folder, and not a file.
    :raises ValueError: a path that cannot be written.
    """
    if path is None:
        return
    if not folder and path.is_dir():
        raise ValueError(f"{argument}: expected a file, got the folder {path}")
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        if place == path and not folder:
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        kind = "folder" if folder else "file"
        reason = error.strerror or error
        raise ValueError(f"{argument}: expected a {kind} that can be written, got {path} ({reason})") from error


def interrupted_name(path: Path) -> Path:
    """Return a free name that says that the work was interrupted: ``reach.zip`` as ``reach-interrupted.zip``."""
    names = (path.with_name(f"{path.stem}-interrupted{number}{path.suffix}") for number in ("", *range(2, 1000)))
    return next(name for name in names if not name.exists())
