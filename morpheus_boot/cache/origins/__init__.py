"""Origins: where a model comes from. An origin resolves; it moves no bytes."""

import requests

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.huggingface import HuggingFaceOrigin
from morpheus_boot.cache.origins.origin import Origin, Resolved
from morpheus_boot.cache.origins.web import FileOrigin, WebOrigin
from morpheus_boot.errors import ManifestError
from morpheus_boot.manifest import CivitaiSource, HuggingFaceSource, ModelSpec

__all__ = ["Origin", "Resolved", "origin_of"]


def origin_of(model: ModelSpec, credentials: Credentials, session: requests.Session) -> Origin:
    """The origin that models.yaml names for a model. Raises ManifestError for one that is not built yet."""
    source = model.source
    if isinstance(source, HuggingFaceSource):
        return HuggingFaceOrigin(model.path, source, credentials)
    if isinstance(source, CivitaiSource):
        raise ManifestError(
            f"{model.path}",
            "civitai: is not built yet",
            f"use url: https://civitai.com/api/download/models/{source.version_id}",
        )
    if source.url.reveal().startswith("file:"):
        return FileOrigin(model.path, source)
    return WebOrigin(model.path, source, credentials, session)
