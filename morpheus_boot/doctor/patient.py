"""What the checks look at."""

import threading
from dataclasses import dataclass

from morpheus_boot.cache import Plan, hub_roots, make_plan
from morpheus_boot.config.settings import Settings
from morpheus_boot.manifest import Manifest, ModelSpec, NodeSpec
from morpheus_boot.volume.mount import Volume, find_volume


@dataclass(frozen=True, slots=True)
class Patient:
    """A machine as settings and manifest see it; ``manifest`` None: models.yaml is wrong."""

    settings: Settings
    manifest: Manifest | None
    stopping: threading.Event

    def volume(self) -> Volume:
        """The volume that a boot would use. Raises NotSetUp."""
        settings = self.settings
        in_manifest = self.manifest.volume.size_gb if self.manifest else None
        size_gb = settings.volume_gb if settings.volume_gb is not None else in_manifest
        return find_volume(settings.volume, size_gb, on_runpod=settings.runpod.present)

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models that are named, as far as that is known."""
        return self.manifest.models if self.manifest else ()

    @property
    def nodes(self) -> tuple[NodeSpec, ...]:
        """The custom nodes that are named, as far as that is known."""
        return self.manifest.nodes if self.manifest else ()

    def plan(self) -> Plan:
        """What each model needs. Raises NotSetUp, OSError."""
        volume = self.volume()
        return make_plan(self.models, volume.layout, hub_roots(volume.root))
