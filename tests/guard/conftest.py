"""One closed ComfyUI serves all tests that don't change how it is started."""

from collections.abc import Iterator

import pytest

from tests.guard.served import TOKEN, Served, prepare, serving, variables


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("closed")
    prepare(folder)
    with serving(folder, variables(folder)) as served:
        yield served
        assert TOKEN not in served.log
