"""Where everything lies on the volume: path arithmetic, and nothing that touches the disk."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# ComfyUI's main.py takes these names below its output directory, our jobs/, for model folders.
COMFYUI_OUTPUT_FOLDERS: Final = frozenset(
    {"checkpoints", "clip", "vae", "diffusion_models", "loras"}
)
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_job_id(text: str) -> bool:
    """Whether ``text`` may name a job's folder below jobs/, and so also a worker."""
    return _JOB_ID.fullmatch(text) is not None and text not in COMFYUI_OUTPUT_FOLDERS


def model_key(model_path: str) -> str:
    """The name that a model's lock, heartbeat, part, journal and record share.

    The first 32 hex digits of the SHA-256 of its path below model_cache/.
    """
    return hashlib.sha256(model_path.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Layout:
    """The volume's folders and names, as the contract fixes them."""

    root: Path

    @property
    def model_cache(self) -> Path:
        """The models, each under its own path."""
        return self.root / "model_cache"

    @property
    def jobs(self) -> Path:
        """One folder a job: input/, output/. Clients and ComfyUI write here: nothing in it is believed."""
        return self.root / "jobs"

    def job(self, job_id: str) -> Path:
        """The folder of one job."""
        return self.jobs / job_id

    @property
    def workflows(self) -> Path:
        """Copies of the repository's workflows/."""
        return self.root / "morpheus_lib" / "workflows"

    @property
    def ours(self) -> Path:
        """What is ours alone: locks, parts, records, manifests, archives, logs, workers."""
        return self.root / ".morpheus"

    @property
    def locks(self) -> Path:
        """Locks and their heartbeats."""
        return self.ours / "locks"

    @property
    def parts(self) -> Path:
        """Part files and their journals."""
        return self.ours / "parts"

    @property
    def records(self) -> Path:
        """One record a cached model."""
        return self.ours / "records"

    @property
    def manifests(self) -> Path:
        """What each endpoint's models.yaml names."""
        return self.ours / "manifests"

    @property
    def workers(self) -> Path:
        """One heartbeat a worker."""
        return self.ours / "workers"

    @property
    def archives(self) -> Path:
        """Packed trees of small files."""
        return self.ours / "archives"

    @property
    def node_cache(self) -> Path:
        """What custom nodes download by themselves."""
        return self.ours / "node_cache"

    @property
    def uploads(self) -> Path:
        """Uploads on their way."""
        return self.ours / "uploads"

    @property
    def resumable(self) -> Path:
        """Uploads whose bytes come in several requests, by tus."""
        return self.ours / "tus"

    @property
    def trash(self) -> Path:
        """Jobs that are being removed."""
        return self.ours / "trash"

    @property
    def job_records(self) -> Path:
        """One record a job that was posted."""
        return self.ours / "jobs"

    def job_record(self, job_id: str) -> Path:
        """The record of one job: its request, and how it stands."""
        return self.job_records / f"{job_id}.json"

    @property
    def job_marks(self) -> Path:
        """One folder a worker, with the marks of its open jobs."""
        return self.ours / "jobs-open"

    @property
    def jobs_lock(self) -> Path:
        """The lock of whoever sweeps old jobs."""
        return self.locks / "jobs.lock"

    def way(self, path: Path) -> tuple[str, ...]:
        """The names that lead from the root down to ``path``, to be opened one in the other."""
        return path.relative_to(self.root).parts

    def model(self, model_path: str) -> Path:
        """The final name of a cached model."""
        return self.model_cache / model_path

    def record(self, model_path: str) -> Path:
        """The record of a cached model."""
        return self.records / f"{model_key(model_path)}.json"

    def lock(self, model_path: str) -> Path:
        """The lock of whoever fetches a model."""
        return self.locks / f"{model_key(model_path)}.lock"

    @property
    def archive_locks(self) -> Path:
        """The locks of whoever makes what all workers need."""
        return self.locks / "archives"

    def archive_lock(self, what: str) -> Path:
        """The lock of whoever makes ``what``; no model's, so that gc does not look for a model of it."""
        return self.archive_locks / f"{model_key(what)}.lock"

    def old_caches(self) -> tuple[Path, ...]:
        """Where the scripts before this one kept their models, besides model_cache/ itself."""
        return (
            self.root / "morpheus_model_cache",
            self.root / "job_data" / "model_cache",
            self.root / "job_data" / "morpheus_model_cache",
        )
