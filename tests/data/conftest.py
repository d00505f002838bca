import pytest


@pytest.fixture(autouse=True)
def _own_minari_store(tmp_path_factory, monkeypatch):
    """Minari makes its store as soon as one asks for a dataset: not in the home of whoever runs the tests."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
