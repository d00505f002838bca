"""The rooms of the package and the arrows between them, read from the source with `ast`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "aime_gym"

# A room imports only from the rooms on earlier lines, and from itself. A new module at the top of the package
# gets its line here: where it stands is a decision.
ORDER = (
    ("types", "config", "progress", "processes", "serialization"),
    ("wrappers",),
    ("simulators",),
    ("envs",),
    ("tasks",),
    ("data",),
    ("models",),
    ("training",),
    ("model_based", "learned_reward"),
    ("analysis",),
    ("agents",),
    ("experiments",),
    ("cli", "zoo", "testing", "__init__", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# In agents/, every module is an agent but these. Agents import base, or one of the others in its place, and nothing
# else of the room. Explorer imitates nobody, so it stands on agent, as base does.
AGENT_BASES = {
    "base",
    "imagination_agent",
    "latent_policy_agent",
    "learned_reward_agent",
    "stacked_agent",
    "world_model_agent",
}
AGENT_FOUNDATION = {
    "files": set(),
    "environments": set(),
    "agent": {"environments", "files"},
    "base": {"agent", "environments", "files"},
    "learned_reward_agent": {"base"},
    "stacked_agent": {"base"},
    "latent_policy_agent": {"base"},
    "world_model_agent": {"latent_policy_agent"},
    "imagination_agent": {"world_model_agent"},
    "explorer": {"agent"},
}
AGENT_LISTS = {"__init__", "registry"}

# Modules that run code while they read.
UNSAFE_READERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# The libraries that only an environment or a dataset needs.
SIMULATORS = ("mujoco", "dm_control", "metaworld")


class Import(NamedTuple):
    """Module `target` is imported by `importer`, both as parts of the dotted name below the package."""

    importer: tuple[str, ...]
    target: tuple[str, ...]
    place: str


# ---- reading the source ----


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def module_of(path: Path, package: Path) -> tuple[str, ...]:
    """`data/loading.py` is ("data", "loading"), `data/__init__.py` is ("data", "__init__")."""
    return path.relative_to(package).with_suffix("").parts


def is_module(package: Path, parts: tuple[str, ...]) -> bool:
    place = package.joinpath(*parts)
    return place.with_suffix(".py").is_file() or place.is_dir()


def absolute_names(node: ast.AST, importer: tuple[str, ...], package: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names, as parts, that an import statement or a call of `import_module` asks for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield tuple(alias.name.split("."))
    elif isinstance(node, ast.ImportFrom):
        base = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            above = (PACKAGE, *importer)
            base = above[: len(above) - node.level] + base
        for alias in node.names:
            # `from package.data import loading` asks for the module loading, `import collect` for what data holds.
            name = (*base, alias.name)
            yield name if base[:1] == (PACKAGE,) and is_module(package, name[1:]) else base
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            yield tuple(node.args[0].value.split("."))


def imports(package: Path) -> Iterator[Import]:
    """Every import of the package from itself, also inside functions and under TYPE_CHECKING."""
    for path in sources(package):
        importer = module_of(path, package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for name in absolute_names(node, importer, package):
                if name[:1] == (PACKAGE,):
                    place = f"{path.relative_to(package.parent)}:{node.lineno}"
                    yield Import(importer, name[1:] or ("__init__",), place)


# ---- the rules: each returns what is wrong ----


def wrong_arrows(package: Path) -> list[str]:
    """Imports from a room that stands later in the order, or in another room of the same line but the last."""
    wrong = []
    for importer, target, place in imports(package):
        source, destination = importer[0], target[0]
        if source == destination or source not in RANK or destination not in RANK:
            continue  # unknown rooms have their own rule
        if RANK[destination] > RANK[source] or (RANK[destination] == RANK[source] < len(ORDER) - 1):
            wrong.append(f"{place}: {source} imports {destination}")
    return wrong


def sibling_arrows(package: Path) -> list[str]:
    """Agents that import another agent."""
    wrong = []
    for importer, target, place in imports(package):
        if importer[0] != "agents" or target[0] != "agents" or importer[1] in AGENT_LISTS:
            continue
        allowed = AGENT_FOUNDATION.get(importer[1], AGENT_BASES)
        imported = target[1] if len(target) > 1 else "__init__"
        if imported not in allowed:
            wrong.append(f"{place}: agents/{importer[1]} imports agents/{imported}")
    return wrong


def circles(package: Path) -> list[str]:
    """Circles of imports between modules, those under TYPE_CHECKING and inside functions included."""
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for importer, target, _ in imports(package):
        module = target if package.joinpath(*target).with_suffix(".py").is_file() else (*target, "__init__")
        graph.setdefault(importer, set()).add(module)
    found, finished, path = [], set(), []

    def visit(module: tuple[str, ...]) -> None:
        if module in path:
            found.append(" -> ".join(".".join(part) for part in (*path[path.index(module) :], module)))
        elif module not in finished:
            path.append(module)
            for target in sorted(graph.get(module, ())):
                visit(target)
            path.pop()
            finished.add(module)

    for module in sorted(graph):
        visit(module)
    return found


def unknown_rooms(package: Path) -> list[str]:
    """Rooms without a line in the order."""
    return sorted({module_of(path, package)[0] for path in sources(package)} - RANK.keys())


def unsafe_reading(package: Path) -> list[str]:
    """Whatever can run code that a file brings along."""
    wrong = []
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            place = f"{path.relative_to(package.parent)}:{getattr(node, 'lineno', 0)}"
            for name in absolute_names(node, module_of(path, package), package):
                if name and name[0] in UNSAFE_READERS:
                    wrong.append(f"{place}: imports {name[0]}")
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if ast.unparse(node.func) in ("torch.load", "th.load") and keywords.get("weights_only") != "True":
                wrong.append(f"{place}: torch.load without weights_only=True")
            if keywords.get("allow_pickle", "False") != "False":
                wrong.append(f"{place}: allow_pickle")
    return wrong


def star_imports(package: Path) -> list[str]:
    return [
        f"{path.relative_to(package.parent)}:{node.lineno}"
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]


# ---- the package keeps them ----


@pytest.mark.parametrize("rule", [wrong_arrows, sibling_arrows, circles, unknown_rooms, unsafe_reading, star_imports])
def test_the_package_keeps(rule):
    assert rule(ROOT / PACKAGE) == []


def test_no_file_is_named_utils():
    names = ("utils.py", "util.py", "helpers.py", "misc.py")
    assert [path for path in sources(ROOT / PACKAGE) if path.name in names] == []


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in sources(ROOT / PACKAGE)}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution holds no links")
@pytest.mark.parametrize("room", ["agents", "wrappers"])
def test_top_level_links_point_into_the_package(room):
    link = ROOT / room
    assert link.is_symlink()
    assert link.readlink() == Path(PACKAGE) / room
    assert (link / "__init__.py").is_file()


def test_importing_the_package_loads_no_simulator():
    code = f"import sys, {PACKAGE}; print(*[name for name in {SIMULATORS} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split() == []


# ---- the rules see what they should ----


def plant(tmp_path: Path, files: dict[str, str]) -> Path:
    """A package of the given files, by path."""
    package = tmp_path / PACKAGE
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("models/rssm.py", "from aime_gym.agents.base import ImitationAgent"),
        ("models/rssm.py", "import aime_gym.agents.base as base"),
        ("models/rssm.py", "from aime_gym import agents"),
        ("models/rssm.py", "from ..agents import base"),
        ("models/rssm.py", "from .. import agents"),
        ("models/rssm.py", "def late():\n    from aime_gym.training import loop"),
        ("models/rssm.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import aime_gym.cli"),
        ("models/rssm.py", "import importlib\nimportlib.import_module('aime_gym.agents')"),
        ("models/rssm.py", "from aime_gym import make_env"),
        ("models/__init__.py", "from ..agents import base"),
        ("types.py", "import aime_gym"),
        ("types.py", "from .wrappers import Task"),
        ("wrappers/task.py", "from aime_gym.envs import make_env"),
        ("experiments/table.py", "from aime_gym.cli import main"),
        ("model_based/online.py", "from aime_gym.learned_reward.trainer import LearnedRewardTrainer"),
        ("learned_reward/trainer.py", "from ..model_based import online"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path, file, text):
    planted = {"agents/__init__.py": "", "agents/base.py": "", "training/loop.py": "", file: text}
    assert len(wrong_arrows(plant(tmp_path, planted))) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("agents/base.py", "from aime_gym.models.rssm import RSSM"),
        ("agents/base.py", "from ..models import rssm"),
        ("models/rssm.py", "from . import networks\nfrom .networks import mlp"),
        ("models/rssm.py", "import numpy.agents\nfrom gymnasium import envs"),
        ("cli/__init__.py", "import aime_gym\nfrom aime_gym import experiments, zoo"),
        ("__init__.py", "from .envs import make_env\nfrom .agents.aime import AIMEAgent"),
    ],
)
def test_a_right_arrow_is_left_alone(tmp_path, file, text):
    planted = {"models/rssm.py": "", "models/networks.py": "", "zoo.py": "", file: text}
    assert wrong_arrows(plant(tmp_path, planted)) == []


@pytest.mark.parametrize(
    "text",
    [
        "from aime_gym.agents.aime import AIMEAgent",
        "from aime_gym.agents import AIMEAgent",
        "from aime_gym.agents import aime",
        "from .aime import AIMEAgent",
        "from . import aime",
        "from aime_gym.agents.registry import make_agent",
    ],
)
def test_an_agent_that_imports_its_sibling_is_found(tmp_path, text):
    planted = {"agents/__init__.py": "", "agents/aime.py": "", "agents/bco.py": text}
    assert len(sibling_arrows(plant(tmp_path, planted))) == 1


def test_base_and_the_registry_are_not_siblings(tmp_path):
    package = plant(
        tmp_path,
        {
            "agents/__init__.py": "from .aime import AIMEAgent\nfrom .base import ImitationAgent",
            "agents/aime.py": "from aime_gym.agents.base import ImitationAgent",
            "agents/base.py": "from aime_gym.serialization import read_archive",
            "agents/registry.py": "from aime_gym.agents import AIMEAgent",
        },
    )
    assert sibling_arrows(package) == []


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"agents/base.py": "from .files import save", "agents/files.py": "from .base import Agent"}, 2),
        (
            {
                "agents/base.py": "from aime_gym.agents.files import save",
                "agents/files.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .base import Agent",
            },
            2,
        ),
        ({"data/loading.py": "def late():\n    from . import video", "data/video.py": "from .loading import load"}, 2),
        ({"data/__init__.py": "from .loading import load", "data/loading.py": "from aime_gym.data import Video"}, 2),
        ({"data/a.py": "from .b import x", "data/b.py": "from .c import x", "data/c.py": "import aime_gym.data.a"}, 3),
        ({"data/a.py": "from .a import x"}, 1),
    ],
)
def test_a_circle_is_found(tmp_path, files, circle):
    (found,) = circles(plant(tmp_path, files))
    assert found.count("->") == circle


def test_two_ways_to_a_module_are_no_circle(tmp_path):
    files = {"data/a.py": "from . import b, c", "data/b.py": "from .d import x", "data/c.py": "from .d import x"}
    assert circles(plant(tmp_path, files | {"data/d.py": "", "data/__init__.py": "from .a import y"})) == []


def test_a_new_room_is_found(tmp_path):
    assert unknown_rooms(plant(tmp_path, {"types.py": "", "tricks.py": "", "extras/__init__.py": ""})) == [
        "extras",
        "tricks",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "def f():\n    import dill.source",
        "import torch\ntorch.load('x.pt')",
        "import torch\ntorch.load('x.pt', weights_only=False)",
        "import torch\ntorch.load('x.pt', weights_only=flag)",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
    ],
)
def test_unsafe_reading_is_found(tmp_path, text):
    assert len(unsafe_reading(plant(tmp_path, {"data/loading.py": text}))) == 1


def test_safe_reading_is_left_alone(tmp_path):
    text = "torch.load('x.pt', map_location='cpu', weights_only=True)\nnp.load('x.npy', allow_pickle=False)"
    assert unsafe_reading(plant(tmp_path, {"data/loading.py": text})) == []


def test_a_star_import_is_found(tmp_path):
    assert len(star_imports(plant(tmp_path, {"data/loading.py": "from numpy import *"}))) == 1
