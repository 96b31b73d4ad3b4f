"""A site with one model at an origin."""

from pathlib import Path

import pytest

from tests.boot.program import Site
from tests.commands.one_model import MODEL, WEIGHTS
from tests.testbed.origin import Origin


@pytest.fixture
def site(tmp_path: Path, origin: Origin) -> Site:
    url = origin.serve("/a.safetensors", WEIGHTS)
    return Site(tmp_path, f"version: 1\nmodels:\n  - {{path: {MODEL}, url: '{url}'}}\n")
