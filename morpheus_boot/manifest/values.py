"""What models.yaml says: pydantic reads it into these values, which everything else works on.

A field's description is what an error says to give.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, InstanceOf
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from morpheus_boot.config.redact import Redactor, Secret, without_secrets
from morpheus_boot.manifest import rules
from morpheus_boot.manifest.document import Text

_T = TypeVar("_T")

# By its alias in the file, by its name in our own code.
_READ: Final = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)
# Plain decimal digits: YAML 1.1's 0x1f, 0o17, 1_000 and 1:30 are not what anybody means here.
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,17}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_TRUTHS: Final = {"true": True, "false": False}


def _wrong(cause: str) -> PydanticCustomError:
    """A wrong value: ``cause`` goes on from the value itself."""
    return PydanticCustomError("wrong", "{cause}", {"cause": cause})


def _checked(rule: rules.Rule) -> AfterValidator:
    def check(text: str) -> str:
        if cause := rules.wrong_text(text) or rule(text):
            raise _wrong(cause)
        return text

    return AfterValidator(check)


def _without_quotes(read: Callable[[str], object | None], cause: str) -> BeforeValidator:
    """Reads a number or a truth; ``read`` answers None to what is none."""

    def parse(value: object) -> object:
        if not isinstance(value, Text):
            return value
        if not value.plain:
            raise _wrong("is text in quotes")
        parsed = read(value)
        if parsed is None:
            raise _wrong(cause)
        return parsed

    return BeforeValidator(parse)


def _read_decimal(text: str) -> float | None:
    return (float(text) or None) if _DECIMAL.fullmatch(text) else None


def _address(rule: rules.Rule, make: Callable[[str], object]) -> BeforeValidator:
    """Reads a URL, which may hold a token, into what does not show it."""

    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        if cause := rules.wrong_text(value) or rule(value):
            raise _wrong(cause)
        return make(value)

    return BeforeValidator(parse)


def _url_source(text: str) -> "UrlSource":
    brought = text.brought if isinstance(text, Text) else ()
    # A value with a slash is a place, such as a mirror's address; any other may be a token.
    hidden = tuple(Secret(value) for value in brought if "/" not in value)
    return UrlSource(Secret(str(text)), hidden)


def _nothing_is(default: Any) -> BeforeValidator:  # noqa: ANN401 - a list or a mapping
    """``models:`` with every entry commented out says null and means none."""
    return BeforeValidator(
        lambda value: default if isinstance(value, Text) and value.plain and not value else value
    )


_Whole = Annotated[
    int,
    _without_quotes(
        lambda text: int(text) if _WHOLE.fullmatch(text) else None,
        "is not a whole number above 0 in plain digits",
    ),
]
_Decimal = Annotated[float, _without_quotes(_read_decimal, "is not a number above 0")]
_Truth = Annotated[
    bool, _without_quotes(lambda text: _TRUTHS.get(text.lower()), "is neither true nor false")
]
_Version = Annotated[
    Literal[1],
    _without_quotes({"1": 1}.get, "is not a version that this program reads"),
]
_ListOf = Annotated[tuple[_T, ...], _nothing_is(())]
_ModelPath = Annotated[str, _checked(rules.wrong_model_path)]
_Ref = Annotated[str, _checked(rules.wrong_ref)]


# Its domains green, blue and red are one service, with one kind of account (src/server/utils of civitai/civitai).
CIVITAI_HOSTS: Final = frozenset(
    f"{www}civitai.{domain}" for www in ("", "www.") for domain in ("com", "green", "red")
)


@dataclasses.dataclass(frozen=True, slots=True)
class UrlSource:
    """A model at an http, https or file URL.

    ``hidden`` are the values from ``${NAME}`` that may be credentials wherever they stand in the URL.
    """

    url: Secret
    hidden: tuple[Secret, ...] = ()

    @property
    def host(self) -> str:
        """The host that it names; empty for a file."""
        return urlsplit(self.url.reveal()).hostname or ""

    @property
    def identity(self) -> str:
        """The URL without secrets, as records compare it: a renewed token leaves it as it is."""
        return Redactor(self.hidden)(without_secrets(self.url.reveal()))


@dataclass(frozen=True, slots=True, config=_READ)
class HuggingFaceSource:
    """One file of a repository on Hugging Face; ``revision`` is a branch, a tag or a commit."""

    repo: Annotated[str, _checked(rules.wrong_repo)] = Field(
        description="owner/name, such as h94/IP-Adapter, and type beside it for a dataset or a space"
    )
    file: Annotated[str, _checked(rules.wrong_file)] = Field(
        description="the file's path in the repository"
    )
    revision: _Ref = Field(default="main", description="a branch, a tag or a commit")
    kind: Literal["model", "dataset", "space"] = Field(
        default="model", validation_alias="type", description="model, dataset or space"
    )

    @property
    def repo_path(self) -> str:
        """The repository as the hub's addresses have it: owner/name, datasets/owner/name, spaces/owner/name."""
        return self.repo if self.kind == "model" else f"{self.kind}s/{self.repo}"

    @property
    def identity(self) -> str:
        """The file's name as records compare it."""
        return f"huggingface:{self.repo_path}/{self.file}@{self.revision}"


@dataclasses.dataclass(frozen=True, slots=True)
class CivitaiSource:
    """The primary file of a model version on Civitai."""

    version_id: int

    @property
    def identity(self) -> str:
        """The version's name as records compare it."""
        return f"civitai:{self.version_id}"


Source = UrlSource | HuggingFaceSource | CivitaiSource


@dataclass(frozen=True, slots=True, config=_READ)
class ModelSpec:
    """One model: one file, and where it comes from.

    ``path`` and ``links`` are ``folder/file``: posix, relative, normalized, unique among all models.
    ``sha256`` is in lower case. Of ``url``, ``huggingface``, ``civitai`` exactly one is set.
    """

    path: _ModelPath = Field(
        description="folder/file as below ComfyUI's models/, such as checkpoints/x.safetensors"
    )
    url: Annotated[InstanceOf[UrlSource], _address(rules.wrong_url, _url_source)] | None = Field(
        default=None, description="a URL such as https://host/file"
    )
    huggingface: HuggingFaceSource | None = Field(
        default=None,
        description="{repo: owner/name, file: path in it, revision: where it is not main, type: dataset or space}",
    )
    civitai: _Whole | None = Field(default=None, description="a model version's id, such as 131960")
    sha256: Annotated[str, _checked(rules.wrong_sha256), AfterValidator(str.lower)] | None = Field(
        default=None, description="64 hex digits"
    )
    size_bytes: _Whole | None = Field(
        default=None,
        validation_alias="size",
        description="the file's size in bytes, in plain digits",
    )
    required: _Truth = Field(default=True, description="true or false")
    preload: _Truth = Field(default=False, description="true or false")
    links: _ListOf[_ModelPath] = Field(
        default=(), description="a list of more places below ComfyUI's models/, each as folder/file"
    )

    @property
    def source(self) -> Source:
        """Where it comes from."""
        return self.url or self.huggingface or CivitaiSource(self.civitai or 0)


@dataclass(frozen=True, slots=True, config=_READ)
class NodeSpec:
    """One custom node: ``ref`` (a tag, a commit, a branch) of the repository ``git``, in the folder ``name``."""

    name: Annotated[str, _checked(rules.wrong_node_name)] = Field(
        description="a folder's name of letters, digits, '.', '_' and '-'"
    )
    git: Annotated[
        InstanceOf[Secret], _address(rules.wrong_git, lambda text: Secret(str(text)))
    ] = Field(description="a URL such as https://host/owner/name, or git@host:path")
    ref: _Ref = Field(description="a tag or a commit (a branch moves)")
    required: _Truth = Field(default=True, description="true or false")


@dataclass(frozen=True, slots=True, config=_READ)
class VolumeSpec:
    """``size_gb`` is the volume as bought, in 10^9 bytes."""

    size_gb: _Decimal | None = Field(
        default=None, description="the volume's size as bought, in GB, such as 20"
    )


@dataclass(frozen=True, slots=True, config=_READ)
class ComfyUISpec:
    """``args`` are more arguments for ComfyUI, ``env`` names variables that it may see."""

    args: _ListOf[Annotated[str, _checked(rules.wrong_comfyui_arg)]] = Field(
        default=(),
        description="a list of ComfyUI's other arguments, one an item, such as [--lowvram]",
    )
    env: _ListOf[Annotated[str, _checked(rules.wrong_variable)]] = Field(
        default=(), description="a list of environment variables by name, such as [HF_TOKEN]"
    )


@dataclass(frozen=True, slots=True, config=_READ)
class ManifestFile:
    """models.yaml, whole and right."""

    version: _Version = Field(description="1")
    volume: Annotated[VolumeSpec, _nothing_is({})] = Field(
        default=VolumeSpec(), description="a mapping such as {size_gb: 20}"
    )
    comfyui: Annotated[ComfyUISpec, _nothing_is({})] = Field(
        default=ComfyUISpec(), description="a mapping such as {args: [], env: []}"
    )
    models: _ListOf[ModelSpec] = Field(
        default=(),
        description="a list of models, each a mapping with path and url, huggingface or civitai",
    )
    nodes: _ListOf[NodeSpec] = Field(
        default=(),
        validation_alias="custom_nodes",
        description="a list of nodes, each a mapping with name, git, ref",
    )


# What is read at each place, its list positions left out.
READ_AT: Final[dict[tuple[str, ...], Any]] = {
    (): ManifestFile,
    ("volume",): VolumeSpec,
    ("comfyui",): ComfyUISpec,
    ("models",): ModelSpec,
    ("models", "huggingface"): HuggingFaceSource,
    ("custom_nodes",): NodeSpec,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """models.yaml and what came with it.

    ``secrets`` are the values that ``${NAME}`` brought in: none of them may be logged. ``variables`` are their names.
    """

    path: Path
    volume: VolumeSpec = VolumeSpec()
    comfyui: ComfyUISpec = ComfyUISpec()
    models: tuple[ModelSpec, ...] = ()
    nodes: tuple[NodeSpec, ...] = ()
    secrets: tuple[Secret, ...] = ()
    variables: tuple[str, ...] = ()
