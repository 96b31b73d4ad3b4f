"""What models.yaml says, parsed: the values that everything else works on."""

from dataclasses import dataclass
from pathlib import Path

from morpheus_boot.config.redact import Redactor, Secret, without_secrets


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A model at an http, https or file URL.

    ``hidden`` are the values from ``${NAME}`` that may be credentials wherever they stand in the URL.
    """

    url: Secret
    hidden: tuple[Secret, ...] = ()

    @property
    def identity(self) -> str:
        """The URL without secrets, as records compare it: a renewed token leaves it as it is."""
        return Redactor(self.hidden)(without_secrets(self.url.reveal()))


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """One file of a repository on Hugging Face; ``revision`` is a branch, a tag or a commit."""

    repo: str
    file: str
    revision: str = "main"

    @property
    def identity(self) -> str:
        """The file's name as records compare it."""
        return f"huggingface:{self.repo}/{self.file}@{self.revision}"


@dataclass(frozen=True, slots=True)
class CivitaiSource:
    """The primary file of a model version on Civitai."""

    version_id: int

    @property
    def identity(self) -> str:
        """The version's name as records compare it."""
        return f"civitai:{self.version_id}"


Source = UrlSource | HuggingFaceSource | CivitaiSource


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model.

    ``path`` and ``links`` are ``folder/file``: posix, relative, normalized, unique among all models.
    ``sha256`` is in lower case, ``line`` where the entry begins in models.yaml, from 1.
    """

    path: str
    source: Source
    sha256: str | None
    size_bytes: int | None
    required: bool
    preload: bool
    links: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One custom node: ``ref`` (a tag, a commit, a branch) of the repository ``git``, in the folder ``name``."""

    name: str
    git: Secret
    ref: str
    required: bool
    line: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """models.yaml, whole and right.

    ``size_gb`` is the volume as bought, in 10^9 bytes. ``comfyui_env`` names variables that ComfyUI may see.
    ``secrets`` are the values that ``${NAME}`` brought in: none of them may be logged. ``variables`` are their names.
    """

    path: Path
    size_gb: float | None
    comfyui_args: tuple[str, ...]
    comfyui_env: tuple[str, ...]
    models: tuple[ModelSpec, ...]
    nodes: tuple[NodeSpec, ...]
    secrets: tuple[Secret, ...]
    variables: tuple[str, ...]
