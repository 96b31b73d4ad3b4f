"""A worker of the tests: fills a volume through the cache's own door, with times that no test has to wait for."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from morpheus_boot.cache import CachedModel, FillContext, FillOptions, fill, make_plan
from morpheus_boot.cache.options import Credentials, LockTimes, TransferTimes
from morpheus_boot.cache.planner import Plan
from morpheus_boot.config.redact import Secret
from morpheus_boot.manifest import HuggingFaceSource, ModelSpec, UrlSource
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import Mount, Volume
from morpheus_boot.work.backoff import Backoff

MIB = 1 << 20
QUICK = FillOptions(
    worker="worker-1",
    lock_times=LockTimes(beat_s=0.1, silence_s=1.0, deadline_s=20.0, poll_s=0.02),
    transfer_times=TransferTimes(
        sync_bytes=MIB,
        chunk_bytes=MIB,
        # One model after another, each in one request, however long a test holds that.
        models=1,
        span_bytes=1 << 40,
        window_s=300.0,
        retry=Backoff(first_s=0.01, most_s=0.05, deadline_s=0.5),
    ),
)


def model(
    path: str, url: str, *, sha256: str | None = None, size_bytes: int | None = None
) -> ModelSpec:
    """A model behind a URL, as models.yaml would name it."""
    return ModelSpec(path, url=UrlSource(Secret(url)), sha256=sha256, size_bytes=size_bytes)


def hub_model(path: str, source: HuggingFaceSource) -> ModelSpec:
    """A model on Hugging Face."""
    return ModelSpec(path, huggingface=source)


@dataclass
class Worker:
    """One worker on one volume; ``states`` is what it reported."""

    root: Path
    name: str = "worker-1"
    size_bytes: int | None = None
    options: FillOptions = QUICK
    stopping: threading.Event = field(default_factory=threading.Event)
    states: list[ModelState] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        """Where everything lies on its volume."""
        return Layout(self.root)

    @property
    def volume(self) -> Volume:
        """Its volume."""
        return Volume(self.root, Mount(Path("/"), "ext4"), self.size_bytes)

    @property
    def context(self) -> FillContext:
        """What its fills share."""
        options = replace(self.options, worker=self.name)
        return FillContext(self.volume, options, self.stopping, self.states.append)

    def plan(self, *models: ModelSpec) -> Plan:
        """What the models need."""
        return make_plan(models, self.layout, self.options.hub_roots)

    def fill(self, *models: ModelSpec) -> tuple[CachedModel, ...]:
        """Plans and fills, as a boot does."""
        return fill(self.plan(*models), self.context)

    def with_hub(
        self, endpoint: str, token: str | None = None, hub_roots: tuple[Path, ...] = ()
    ) -> "Worker":
        """The same worker, to whom ``endpoint`` is Hugging Face."""
        credentials = Credentials(Secret(token) if token else None, endpoint)
        options = replace(self.options, credentials=credentials, hub_roots=hub_roots)
        return replace(self, options=options)
