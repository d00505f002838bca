"""English of the package: docstrings, parameters, names and assignments, read from the source with `ast`."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "aime_gym"

# A docstring opens with a verb in the imperative or with a noun of its own, a parameter with a noun phrase: neither
# with a word that leaves the noun out.
NOUNLESS = (
    "all of it, all that, also, and, as, at, because, but, by, both, either, each of them, for, from, go on, goes on, "
    "how, if, in, it, its, likewise, nobody, nothing, of, once, one of, only, on, or, same, so, somebody, such, that, "
    "the same, then, there, they, this, those, to, what, whatever, when, where, wherever, whether it, which, who, "
    "whoever, whose, with, without"
)
# Verbs that open a description of an effect where the noun is due.
PARAMETER_VERBS = "decides, draws, ends, gives, is, keep, keeps, leave, leaves, make, makes, said, says, samples, see, "
PARAMETER_VERBS += "sees, take, takes, turn, use, uses, write, writes"
# Pictures, in place of which the field has a word: reward, callback, normalise, prediction, imagined rollout, render.
PICTURES = (
    "earn, earns, earned, earner, earning, paid, pays, meet, meets, met, foretell, foretells, foretold, foresee, "
    "foresees, foreseen, watch, watches, watched, watching, dream, dreams, dreamt"
)

# ---- reading the source ----


def sources(package: Path) -> Iterator[tuple[str, str]]:
    """Yield the path below the package's parent and the text of every module."""
    for path in sorted(package.rglob("*.py")):
        yield str(path.relative_to(package.parent)), path.read_text(encoding="utf-8")


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None:
                yield node.body[0].lineno, docstring


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def opens_with(phrases: str) -> re.Pattern[str]:
    return re.compile(rf"({'|'.join(phrases.split(', '))})\b", re.IGNORECASE)


# ---- the rules: each yields line and offence ----


def nounless_docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Docstrings whose first sentence has neither a verb in the imperative nor a noun of its own in front."""
    for line, docstring in docstrings(text):
        if opens_with(NOUNLESS).match(docstring.lstrip()):
            yield line, docstring.strip().splitlines()[0]


def nounless_comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments that document a name (`#:`) and open as no docstring may."""
    previous = -1
    for line, comment in comments(text):
        if comment.startswith("#:"):
            if line != previous + 1 and opens_with(NOUNLESS).match(comment[2:].lstrip()):
                yield line, comment
            previous = line


def nounless_parameters(text: str) -> Iterator[tuple[int, str]]:
    """Parameters whose description opens with anything but a noun phrase; a bare shape is none."""
    for line, docstring in docstrings(text):
        for offset, row in enumerate(docstring.splitlines()):
            described = re.match(r"\s*:param [\w*]+: ?(.*)", row)
            if described and (
                opens_with(f"{NOUNLESS}, {PARAMETER_VERBS}").match(described[1]) or re.match(r"`*\(|$", described[1])
            ):
                yield line + offset, row.strip()


def pictures_in_prose(text: str) -> Iterator[tuple[int, str]]:
    """Docstrings and comments with a metaphor."""
    picture = re.compile(rf"\b({'|'.join(PICTURES.split(', '))})\b", re.IGNORECASE)
    for line, prose in (*docstrings(text), *comments(text)):
        for offset, row in enumerate(prose.splitlines()):
            if picture.search(row):
                yield line + offset, row.strip()


def pictures_in_names(text: str) -> Iterator[tuple[int, str]]:
    """Names of classes, functions, arguments, variables and attributes with a metaphor."""
    for node in ast.walk(ast.parse(text)):
        name = None
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        words = re.findall(r"[A-Z]?[a-z]+", name or "")
        if {word.lower() for word in words} & set(PICTURES.split(", ")):
            yield node.lineno, str(name)


def crowded_assignments(text: str) -> Iterator[tuple[int, str]]:
    """Lines such as `a, b = f(), g()`; several calls of one function, and tuples without a call, are left alone."""
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
            and any(isinstance(element, ast.Call) for element in node.value.elts)
        ):
            called = {
                ast.unparse(element.func).rpartition(".")[2] if isinstance(element, ast.Call) else None
                for element in node.value.elts
            }
            if len(called) > 1:
                yield node.lineno, ast.unparse(node)


RULES = [
    nounless_docstrings,
    nounless_comments,
    nounless_parameters,
    pictures_in_prose,
    pictures_in_names,
    crowded_assignments,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps(rule):
    offences = [f"{path}:{line}: {offence}" for path, text in sources(PACKAGE) for line, offence in rule(text)]
    assert not offences, "\n" + "\n".join(offences)


# ---- the rules find what they should ----


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        *(
            (nounless_docstrings, f'def f():\n    """{opening} they learn."""')
            for opening in ("Of what", "What", "Who", "The same as", "Go on with what", "Whether it knows", "As")
        ),
        *(
            (nounless_parameters, f'"""Do it.\n\n:param x: {opening}\n"""')
            for opening in ("of clips", "as in SB3", "by default 3", "what is seen", "makes the source", "(T, B)", "")
        ),
        (nounless_comments, "#: Of each row.\nROWS = 3\n#: Rows\n#: of a batch.\nBATCH = 3"),
        (pictures_in_prose, "#: Steps that are paid for.\nSTEPS = 3"),
        (pictures_in_prose, '"""Return the reward.\n\nThe agent earns it.\n"""'),
        (pictures_in_names, "class Watch:\n    pass"),
        (pictures_in_names, "def f(self):\n    self.times_met = 3"),
        (crowded_assignments, "a, b = f(), g()"),
        (crowded_assignments, "first, second = x.sum(), y"),
    ],
)
def test_an_offence_is_found(rule, text):
    assert len(list(rule(text))) == 1


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (nounless_docstrings, 'def f():\n    """Offsets of each row."""'),
        (nounless_docstrings, 'def f():\n    """Whether the model has been fitted."""'),
        (nounless_parameters, '"""Do it.\n\n:param x: rows (N, D) of a batch\n"""'),
        (nounless_parameters, '"""Do it.\n\n:param x: whether to shuffle\n"""'),
        (pictures_in_prose, '"""Return a parameter that a DreamerV3 learner has."""'),
        (pictures_in_names, "learner = Metric()"),
        (crowded_assignments, "a, b = b, a"),
        (crowded_assignments, "height, width = int(x), int(y)"),
        (crowded_assignments, "mean, std = net(x).chunk(2)"),
    ],
)
def test_good_prose_is_left_alone(rule, text):
    assert list(rule(text)) == []
