"""The model of these tests' site, and what the commands' ``--json`` says."""

import json
from pathlib import Path
from typing import Any

from tests.boot.program import Ended, Site
from tests.testbed.content import safetensors
from tests.testbed.origin import Origin

WEIGHTS = safetensors(2_000_000)
MODEL = "checkpoints/a.safetensors"


def cached(site: Site) -> Path:
    """The model's file in the cache."""
    return site.volume / "model_cache" / MODEL


def document(ended: Ended) -> dict[str, Any]:
    parsed = json.loads(ended.out)
    assert isinstance(parsed, dict)
    return parsed


def name_another_origin(site: Site, origin: Origin) -> None:
    """Fills as endpoint-1; then the site is endpoint-2's, which takes the model from another URL."""
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0
    origin.serve("/b.safetensors", WEIGHTS)
    site.models = site.models.replace("/a.safetensors'", "/b.safetensors'")
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-2"}
