import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tested here is what kernels do under the interpreter."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        for item in items:
            if "kernels" in item.path.parent.name:
                item.add_marker(pytest.mark.skip(reason="needs TRITON_INTERPRET=1"))
