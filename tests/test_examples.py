"""The scripts in `examples/` run as they are, and say what the README says of them."""

import difflib
import subprocess
import sys
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
def test_the_script_runs(script, tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLES / script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "return" in result.stdout.splitlines()[-1]
    out = tmp_path / "runs" / "examples"
    assert {"agent.zip", "best_model.zip", "evaluations.npz"} <= {path.name for path in out.iterdir()}
    evaluations = np.load(out / "evaluations.npz")
    assert list(evaluations["timesteps"]) == [500 * (i + 1) for i in range(len(evaluations["timesteps"]))]
    assert np.isfinite(evaluations["results"]).all()
