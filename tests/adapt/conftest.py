import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small trainings are faster alone on their core, and a resumed one must add in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
