"""One host whose environment is made once, for all tests that don't change it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package_index import PackageIndex, package_index, with_sample
from tests.pythons import base_python
from tests.start.host import Host, checkout_below, tools_below


@pytest.fixture(scope="session")
def index(pip_wheel: Path) -> Iterator[PackageIndex]:
    with package_index(with_sample(pip_wheel)) as one:
        yield one


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, index: PackageIndex) -> Host:
    """A host where nothing is made yet."""
    folder = tmp_path_factory.mktemp("host")
    tools = tools_below(folder / "tools", python3=base_python())
    return Host(checkout_below(folder), tools, folder / "local folder", index)


@pytest.fixture
def fresh(shared: Host, tmp_path: Path) -> Host:
    """The same machine, with a local folder of the test's own."""
    return Host(shared.root, shared.tools, tmp_path / "local", shared.index)


@pytest.fixture(scope="session")
def warm(shared: Host) -> Host:
    """The shared host once its environment is there."""
    assert shared.said()["value"] == "1.0"
    return shared
