"""Origins: where a model comes from. Another one is a module beside these, and a line in origin_of()."""

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.civitai import CivitaiOrigin
from morpheus_boot.cache.origins.file import FileOrigin
from morpheus_boot.cache.origins.http import Client
from morpheus_boot.cache.origins.huggingface import HuggingFaceOrigin
from morpheus_boot.cache.origins.origin import Origin, Resolved
from morpheus_boot.cache.origins.web import WebOrigin
from morpheus_boot.manifest import CivitaiSource, HuggingFaceSource, ModelSpec

__all__ = ["Origin", "Resolved", "origin_of"]


def origin_of(model: ModelSpec, credentials: Credentials, client: Client) -> Origin:
    """The origin that models.yaml names for a model."""
    source = model.source
    if isinstance(source, HuggingFaceSource):
        return HuggingFaceOrigin(model.path, source, credentials)
    if isinstance(source, CivitaiSource):
        return CivitaiOrigin(model.path, source, credentials, client)
    if source.url.reveal().startswith("file:"):
        return FileOrigin(model.path, source)
    return WebOrigin(model.path, source, credentials, client)
