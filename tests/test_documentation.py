"""The README and the documentation hold no code that fails, no command that is refused, and no dead link."""

import ast
import configparser
import re
import shlex
from pathlib import Path

import click
import pytest

import aime_gym
from aime_gym import cli
from aime_gym.agents.registry import AGENTS
from aime_gym.experiments.suite import read_suite

ROOT = Path(__file__).resolve().parents[1]
#: Markdown outside of the site as well: mkdocs checks the links of its own pages only.
REPOSITORY = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "examples/README.md")]
PAGES = [*REPOSITORY, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SNIPPET = "--8<--"
#: Commands whose arguments belong to others: pip, apt and the like.
FOREIGN = {"apt-get", "pytest", "rl_zoo3", "torchrun"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """The code of the page's blocks, each behind as many empty lines as are above it in the page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[1] == language and SNIPPET not in match[2]:
            yield "\n" * (text[: match.start(2)].count("\n")) + match[2]


def program(page):
    """All blocks of a page as one program, which keeps the page's line numbers."""
    lines = []
    for code in blocks(page, "python"):
        lines += code.splitlines()[len(lines) :]
    return "\n".join(lines)


def marked(page):
    slow = page.read_text(encoding="utf-8").startswith("<!-- slow:")
    return pytest.param(page, id=name(page), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("page", [marked(page) for page in PAGES if program(page)])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """With a tenth of the updates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aime_gym.agents.registry.AGENTS", AGENTS.copy())  # a page may register an agent
    fewer = re.sub(r'_updates": (\d+)0\b', r'_updates": \1', program(page))
    exec(compile(fewer, name(page), "exec"), {"__name__": "__main__"})


def commands(page):
    for code in blocks(page, "sh"):
        for number, line in enumerate(code.replace("\\\n", "").splitlines(), 1):
            words = shlex.split(line, comments=True)
            if words:
                yield number, words


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=name)
def test_commands_are_accepted(page, capsys):
    for number, words in commands(page):
        place = f"{name(page)}:{number}: {shlex.join(words)}"
        problem = refused(words)
        assert not problem, f"{place}: {problem} {capsys.readouterr().err}"


def refused(words):
    """Why a command cannot run as it stands, as far as that can be said without running it."""
    program, *arguments = words
    if program == "aime-gym":
        try:
            group = click.Context(cli._PROGRAM, **cli._PROGRAM.context_settings)  # verbs keep its names of --help
            verb = cli._PROGRAM.get_command(group, arguments[0])
            verb.make_context(arguments[0], arguments[1:], parent=group)
        except click.ClickException as error:
            return f"refused: {error.format_message()}"
    elif program == "make":
        return None if set(arguments) <= TARGETS else f"expected some of {sorted(TARGETS)}"
    elif program == "pip":
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        extras = {extra for word in arguments for group in re.findall(r"\[(.*)\]", word) for extra in group.split(",")}
        return None if extras <= set(config["options.extras_require"]) else f"no extra of these: {extras}"
    elif program == "python" and arguments[0] == "-m":
        assert arguments[1] == "aime_gym.zoo", arguments
        pytest.importorskip("rl_zoo3")
        from aime_gym.zoo import command

        try:
            command._parser(arguments[2]).parse_known_args(arguments[3:])
        except ValueError as error:
            return str(error)
    elif program == "python":
        script = ROOT / arguments[0]
        if not script.is_file():
            return "no such script"
        known = script.read_text(encoding="utf-8")
        unknown = [word for word in arguments[1:] if word.startswith("--") and f'"{word}"' not in known]
        return f"unknown options {unknown}" if unknown else None
    elif program.startswith("."):
        return None if (ROOT / program).is_file() else "no such script"
    elif program not in FOREIGN:
        return "a command that no test knows"
    return None


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("aime-gym compare reach-v3 --no-such-option", "refused"),
        ("make dmeo", "expected some of"),
        ("pip install .[reprot]", "no extra"),
        ("python benchmarks/nothing.py", "no such script"),
        ("python benchmarks/memory.py --no-such-option", "unknown options"),
        ("unheard-of", "no test knows"),
    ],
)
def test_a_wrong_command_is_found(command, problem):
    assert problem in refused(shlex.split(command))


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "toml"))], ids=name)
def test_suites_are_accepted(page, tmp_path):
    for code in blocks(page, "toml"):
        path = tmp_path / "suite.toml"
        path.write_text(code, encoding="utf-8")
        assert read_suite(path).tasks


def anchors(page):
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith(("http:", "https:"))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name(page)}: no {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name(page)}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_names_its_language(page):
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"python", "sh", "toml", "bibtex"}
    assert set(fences[1::2]) <= {""}


def test_every_agent_has_a_page():
    pages = {path.stem for path in (ROOT / "docs" / "agents").glob("*.md")}
    assert set(AGENTS) <= pages
    for agent, agent_class in AGENTS.items():
        assert f"::: {agent_class.__module__}" in (ROOT / "docs" / "agents" / f"{agent}.md").read_text()


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_the_version_to_cite_is_the_package_s():
    assert f"\nversion: {aime_gym.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_version_has_a_date():
    version = re.escape(aime_gym.__version__)
    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_docstrings_are_markdown():
    """Sphinx's roles would stand on the pages as they are, and an example that is not indented be a quotation."""
    for path in sorted((ROOT / "aime_gym").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                assert not re.search(r":[a-z]+:`|^>>>|::$", docstring, re.MULTILINE), f"{path}: {docstring}"
