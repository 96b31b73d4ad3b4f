"""models.yaml -> Manifest: parsed once, with every mistake in it named by line and field."""

from morpheus_boot.manifest.reader import read_manifest
from morpheus_boot.manifest.values import (
    CIVITAI_HOSTS,
    CivitaiSource,
    HuggingFaceSource,
    Manifest,
    ModelSpec,
    NodeSpec,
    Source,
    UrlSource,
)

__all__ = [
    "CIVITAI_HOSTS",
    "CivitaiSource",
    "HuggingFaceSource",
    "Manifest",
    "ModelSpec",
    "NodeSpec",
    "Source",
    "UrlSource",
    "read_manifest",
]
