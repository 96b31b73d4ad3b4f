"""A container of the test's own."""

from pathlib import Path

import pytest

from tests.boot.program import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
