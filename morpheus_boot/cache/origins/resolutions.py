"""What the origins said, each asked once a fill unless a wait came between: for the room, then for the bytes."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.civitai import CivitaiOrigin
from morpheus_boot.cache.origins.file import FileOrigin
from morpheus_boot.cache.origins.http import Client
from morpheus_boot.cache.origins.huggingface import HuggingFaceOrigin
from morpheus_boot.cache.origins.origin import Origin, Resolved, TransientFailure
from morpheus_boot.cache.origins.web import WebOrigin
from morpheus_boot.cache.parts import Version
from morpheus_boot.errors import MorpheusError, OriginUnavailable
from morpheus_boot.manifest import CivitaiSource, HuggingFaceSource, ModelSpec
from morpheus_boot.work.background import begin, together
from morpheus_boot.work.backoff import Backoff, try_again
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
_AT_ONCE: Final = 8
_TICK_S: Final = 0.1

_T = TypeVar("_T")


class Resolutions:
    """Asks the origins, and remembers answers and refusals alike."""

    def __init__(
        self,
        credentials: Credentials,
        client: Client,
        backoff: Backoff,
        stopping: threading.Event,
    ) -> None:
        self._credentials = credentials
        self._client = client
        self._backoff = backoff
        self._stopping = stopping
        self._known: dict[str, Resolved | MorpheusError] = {}

    def origin(self, model: ModelSpec) -> Origin:
        """The origin itself, to be asked anew."""
        return origin_of(model, self._credentials, self._client)

    def of(self, model: ModelSpec) -> Resolved:
        """What the origin and models.yaml say of the model. Raises MorpheusError, the same one each time; Stopped."""
        if model.path not in self._known:
            try:
                resolved = resolve(self.origin(model), self._backoff, self._stopping)
                version = agreed_version(model, resolved.version)
                self._known[model.path] = replace(resolved, version=version)
            except MorpheusError as error:
                self._known[model.path] = error
        known = self._known[model.path]
        if isinstance(known, MorpheusError):
            raise known
        return known

    def forget(self, model: ModelSpec) -> None:
        """Has the origin asked anew, should its answer be needed again."""
        self._known.pop(model.path, None)

    def ask_all(self, models: Iterable[ModelSpec]) -> None:
        """Asks for all models at once; of() has their answers then. Raises Stopped."""

        def ask(model: ModelSpec) -> None:
            with suppress(MorpheusError):
                self.of(model)

        together(ask, models, _AT_ONCE)

    def size_bytes(self, model: ModelSpec) -> int | None:
        """The model's size by models.yaml or its origin; None where neither says."""
        if model.size_bytes is not None:
            return model.size_bytes
        known = self._known.get(model.path)
        return known.version.size_bytes if isinstance(known, Resolved) else None

    def refusal(self, model: ModelSpec) -> MorpheusError | None:
        """The error that asking for the model ended with; None where it was not asked for, or has an answer."""
        known = self._known.get(model.path)
        return known if isinstance(known, MorpheusError) else None


def agreed_version(model: ModelSpec, version: Version) -> Version:
    """What models.yaml and the origin say together. Raises OriginUnavailable where they contradict each other."""
    for what, ours, theirs in (
        ("size", model.size_bytes, version.size_bytes),
        ("sha256", model.sha256, version.sha256),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise OriginUnavailable(
                model.path,
                f"models.yaml says {what} {ours}, {version.origin} says {theirs}",
                "correct models.yaml, or name the revision that it means",
            )
    return replace(
        version,
        size_bytes=version.size_bytes if version.size_bytes is not None else model.size_bytes,
        sha256=model.sha256 or version.sha256,
    )


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


def resolve(origin: Origin, backoff: Backoff, stopping: threading.Event) -> Resolved:
    """What an origin says, asked again where that may help. Raises Stopped, OriginDenied, OriginUnavailable."""
    announced: list[str] = []

    def ask() -> Resolved:
        try:
            return _unless_stopped(origin.resolve, stopping)
        except TransientFailure as failure:
            if not announced:
                cause, trying_s = failure.cause, backoff.deadline_s
                _LOG.info("%s: %s, trying for %.0f s", origin.subject, cause, trying_s)
            announced.append(failure.cause)
            raise

    try:
        return try_again(ask, TransientFailure, backoff, pause=stopping.wait)
    except TransientFailure as failure:
        raise failure.lasting(origin.subject) from failure


def _unless_stopped(work: Callable[[], _T], stopping: threading.Event) -> _T:
    """What ``work`` returns or raises; it is left to its own time-outs where ``stopping`` is set before.

    Raises Stopped.
    """
    outcome = begin(work, "resolve")
    while not stopping.is_set():
        if wait((outcome,), _TICK_S).done:
            return outcome.result()
    raise Stopped
