import pytest
import torch

from tlxml_fast.ops._triton import INTERPRETED

# Of the case tables, what Triton's interpreter takes seconds for.
LONG = (
    "(34, 32, 5)", "(5, 9, 1, 3)", "(2, 3, 4, 3, 2)", "(2, 9, 4, 4, 33)", "(3, 4, 9, 2, 17)",
    "symmetric", "vectors_tasks", "sjlt-triton-(2, 4500, 60)",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These are slow tests where kernels are interpreted."""
    for item in items:
        if INTERPRETED and any(part in item.name for part in LONG):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
