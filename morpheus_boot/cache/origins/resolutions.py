"""What the origins said, each asked once a fill unless a wait came between: for the room, then for the bytes."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from morpheus_boot.cache.options import Credentials, RetryPolicy
from morpheus_boot.cache.origins import Origin, Resolved, origin_of
from morpheus_boot.cache.transfer.http import Client
from morpheus_boot.cache.transfer.transfer import resolve_patiently
from morpheus_boot.errors import MorpheusError
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.work.background import together

_AT_ONCE: Final = 8


class Resolutions:
    """Asks the origins, and remembers answers and refusals alike."""

    def __init__(
        self,
        credentials: Credentials,
        client: Client,
        policy: RetryPolicy,
        stopping: threading.Event,
    ) -> None:
        self._credentials = credentials
        self._client = client
        self._policy = policy
        self._stopping = stopping
        self._known: dict[str, Resolved | MorpheusError] = {}

    def origin(self, model: ModelSpec) -> Origin:
        """The origin itself, to be asked anew."""
        return origin_of(model, self._credentials, self._client)

    def of(self, model: ModelSpec) -> Resolved:
        """What the origin says of the model. Raises MorpheusError, the same one each time; Stopped."""
        if model.path not in self._known:
            try:
                self._known[model.path] = resolve_patiently(
                    model.path, self.origin(model), self._policy, self._stopping
                )
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
