"""One running stand-in serves all tests that don't change how it is started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from morpheus_boot.smoke import safetensors
from tests.smoke.running import StandIn, prepare, running

CHECKPOINT = "c.safetensors"
UPSCALER = "u.safetensors"


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("stand-in")
    models = prepare(folder) / "models"
    cache: Path = folder / "cache"
    cache.mkdir()
    (cache / CHECKPOINT).write_bytes(safetensors.filler(1000, seed=1))
    (models / "checkpoints" / CHECKPOINT).symlink_to(cache / CHECKPOINT)
    (models / "upscale_models" / UPSCALER).write_bytes(safetensors.upscaler())
    with running(folder) as one:
        yield one
