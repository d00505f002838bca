import pytest
import torch


@pytest.fixture
def double():
    """Double precision and a seed, for comparisons with plain versions and finite differences."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
