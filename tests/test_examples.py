"""The scripts in `examples/` run as they are, and say what the README says of them."""

import difflib
import re
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
#: What lines of a script may differ in: what is imported, and which data there are.
IMPORTS = ("import ", "from ")
DATA = ("play, demos =", "budget =", "steps, data =")


def test_only_the_import_and_the_data_differ():
    scripts = [(EXAMPLES / name).read_text().split('"""', 2)[2].splitlines() for name in ("sac.py", "aime.py")]
    changed = [line[2:] for line in difflib.ndiff(*scripts) if line[0] in "+-" and line[2:].strip()]
    assert [line for line in changed if not line.startswith((*IMPORTS, *DATA))] == []
    assert all(len([line for line in script if line.strip()]) <= 20 for script in scripts)


@pytest.mark.parametrize("script", ["sac.py", "aime.py"])
def test_the_script_runs(script, tmp_path, monkeypatch, capsys):
    """With a fifth of its updates, steps and episodes."""
    numbers = r"(_updates\": |_freq=|_episodes=|steps, data = |\"play\", |\"expert\", )(\d[\d_]*)"
    fewer = re.sub(numbers, lambda match: match[1] + str(-(-int(match[2]) // 5)), (EXAMPLES / script).read_text())
    monkeypatch.chdir(tmp_path)
    exec(compile(fewer, script, "exec"), {"__name__": "__main__"})
    assert "return" in capsys.readouterr().out.splitlines()[-1]
    out = tmp_path / "runs" / "examples"
    assert {"agent.zip", "best_model.zip", "evaluations.npz"} <= {path.name for path in out.iterdir()}
    evaluations = np.load(out / "evaluations.npz")
    assert list(evaluations["timesteps"]) == [100 * (i + 1) for i in range(len(evaluations["timesteps"]))]
    assert np.isfinite(evaluations["results"]).all()
