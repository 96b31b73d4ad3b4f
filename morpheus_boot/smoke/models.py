"""The three generated models of smoke, and the models.yaml that names them."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.smoke import samples

# The job of the chain runs it.
UPSCALER: Final = "morpheus_smoke_upscaler.safetensors"


@dataclass(frozen=True, slots=True)
class SmokeModel:
    """A model as models.yaml has it, with its bytes.

    Each file's name begins with morpheus_smoke_: in a real ComfyUI's folders nobody else has such a link.
    """

    path: str
    content: bytes
    links: tuple[str, ...] = ()
    preload: bool = False

    @property
    def name(self) -> str:
        """The file's name, which is also its name at the origin."""
        return Path(self.path).name

    @property
    def places(self) -> tuple[str, ...]:
        """Everywhere below ComfyUI's models/ where it must be listed."""
        return (self.path, *self.links)


def make_models() -> tuple[SmokeModel, ...]:
    """One that the job loads, one with a second place, one that is preloaded."""
    return (
        SmokeModel(f"upscale_models/{UPSCALER}", samples.upscaler()),
        SmokeModel(
            "loras/morpheus_smoke_lora.safetensors",
            samples.filler(600_000, seed=1),
            links=("vae/morpheus_smoke_linked.safetensors",),
        ),
        SmokeModel(
            "checkpoints/morpheus_smoke_checkpoint.safetensors",
            samples.filler(4_000_000, seed=2),
            preload=True,
        ),
    )


def write_manifest(file: Path, models: Iterable[SmokeModel], url: Callable[[str], str]) -> None:
    """Writes the models.yaml that names ``models`` at ``url(name)``. JSON is YAML."""
    entries = [
        {
            "path": model.path,
            "url": url(model.name),
            "sha256": hashlib.sha256(model.content).hexdigest(),
            "size": len(model.content),
            "required": True,
            "preload": model.preload,
            "links": list(model.links),
        }
        for model in models
    ]
    file.write_text(json.dumps({"version": 1, "models": entries}, indent=1))
