"""models.yaml's fields, their types and what each expects, for pydantic to check a tree against.

A field's description is what an error says to give.
"""

import re
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from morpheus_boot.config.redact import Secret
from morpheus_boot.manifest import rules
from morpheus_boot.manifest.tree import Scalar
from morpheus_boot.manifest.values import CivitaiSource, HuggingFaceSource, Source, UrlSource

_T = TypeVar("_T")

# Plain decimal digits: YAML 1.1's 0x1f, 0o17, 1_000 and 1:30 are not what anybody means here.
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,17}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_TRUTHS: Final = {"true": True, "false": False}


def wrong(cause: str) -> PydanticCustomError:
    """A wrong value: ``cause`` goes on from the value itself."""
    return PydanticCustomError("wrong", "{cause}", {"cause": cause})


def _scalar(value: object) -> Scalar:
    if not isinstance(value, Scalar):
        raise wrong("is not a single value")
    if value.is_null:
        raise wrong("is empty")
    return value


def _text(rule: rules.Rule) -> PlainValidator:
    def read(value: object) -> str:
        text = _scalar(value).text
        cause = rules.wrong_text(text) or rule(text)
        if cause:
            raise wrong(cause)
        return text

    return PlainValidator(read)


def _plain(value: object) -> str:
    scalar = _scalar(value)
    if not scalar.plain:
        raise wrong("is text in quotes")
    return scalar.text


def _whole(value: object) -> int:
    text = _plain(value)
    if not _WHOLE.fullmatch(text):
        raise wrong("is not a whole number above 0 in plain digits")
    return int(text)


def _size_gb(value: object) -> float:
    text = _plain(value)
    if not _DECIMAL.fullmatch(text) or not float(text):
        raise wrong("is not a number above 0")
    return float(text)


def _version(value: object) -> int:
    if _plain(value) != "1":
        raise wrong("is not a version that this program reads")
    return 1


def _truth(value: object) -> bool:
    truth = _TRUTHS.get(_plain(value).lower())
    if truth is None:
        raise wrong("is neither true nor false")
    return truth


def _url(value: object) -> UrlSource:
    scalar = _scalar(value)
    cause = rules.wrong_text(scalar.text) or rules.wrong_url(scalar.text)
    if cause:
        raise wrong(cause)
    # A value with a slash is a place, such as a mirror's address; any other may be a token.
    hidden = tuple(Secret(value) for value in scalar.brought if "/" not in value)
    return UrlSource(Secret(scalar.text), hidden)


def _nothing_is(default: Any) -> BeforeValidator:  # noqa: ANN401 - a list or a mapping
    """``models:`` with every entry commented out says null and means none."""
    return BeforeValidator(
        lambda value: default if isinstance(value, Scalar) and value.is_null else value
    )


_Whole = Annotated[int, PlainValidator(_whole)]
_Truth = Annotated[bool, PlainValidator(_truth)]
_ListOf = Annotated[list[_T], _nothing_is([])]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VolumeEntry(_Entry):
    """``volume:``."""

    size_gb: Annotated[float, PlainValidator(_size_gb)] | None = Field(
        None, description="the volume's size as bought, in GB, such as 20"
    )


class ComfyUIEntry(_Entry):
    """``comfyui:``."""

    args: _ListOf[Annotated[str, _text(rules.wrong_comfyui_arg)]] = Field(
        [], description="a list of ComfyUI's other arguments, one an item, such as [--lowvram]"
    )
    env: _ListOf[Annotated[str, _text(rules.wrong_environment_name)]] = Field(
        [], description="a list of environment variables by name, such as [HF_TOKEN]"
    )


class HuggingFaceEntry(_Entry):
    """``models[].huggingface:``."""

    repo: Annotated[str, _text(rules.wrong_repo)] = Field(
        description="owner/name, such as h94/IP-Adapter"
    )
    file: Annotated[str, _text(rules.wrong_file)] = Field(
        description="the file's path in the repository"
    )
    revision: Annotated[str, _text(rules.wrong_ref)] = Field(
        "main", description="a branch, a tag or a commit"
    )


class ModelEntry(_Entry):
    """One of ``models:``."""

    path: Annotated[str, _text(rules.wrong_model_path)] = Field(
        description="folder/file as below ComfyUI's models/, such as checkpoints/x.safetensors"
    )
    url: Annotated[UrlSource, PlainValidator(_url)] | None = Field(
        None, description="a URL such as https://host/file"
    )
    huggingface: HuggingFaceEntry | None = Field(
        None, description="{repo: owner/name, file: path in it, revision: where it is not main}"
    )
    civitai: _Whole | None = Field(None, description="a model version's id, such as 131960")
    sha256: Annotated[str, _text(rules.wrong_sha256)] | None = Field(
        None, description="64 hex digits"
    )
    size: _Whole | None = Field(None, description="the file's size in bytes, in plain digits")
    required: _Truth = Field(True, description="true or false")  # noqa: FBT003 - its default
    preload: _Truth = Field(False, description="true or false")  # noqa: FBT003 - its default
    links: _ListOf[Annotated[str, _text(rules.wrong_model_path)]] = Field(
        [], description="a list of more places below ComfyUI's models/, each as folder/file"
    )

    def sources(self) -> tuple[Source, ...]:
        """Where the model comes from; one, where the entry is right."""
        repository, version_id = self.huggingface, self.civitai
        given = (
            self.url,
            repository and HuggingFaceSource(repository.repo, repository.file, repository.revision),
            version_id and CivitaiSource(version_id),
        )
        return tuple(source for source in given if source)


class NodeEntry(_Entry):
    """One of ``custom_nodes:``."""

    name: Annotated[str, _text(rules.wrong_node_name)] = Field(
        description="a folder's name of letters, digits, '.', '_' and '-'"
    )
    git: Annotated[str, _text(rules.wrong_git)] = Field(
        description="a URL such as https://host/owner/name, or git@host:path"
    )
    ref: Annotated[str, _text(rules.wrong_ref)] = Field(
        description="a tag or a commit (a branch moves)"
    )
    required: _Truth = Field(True, description="true or false")  # noqa: FBT003 - its default


class ManifestEntry(_Entry):
    """The whole file."""

    version: Annotated[int, PlainValidator(_version)] = Field(description="1")
    volume: Annotated[VolumeEntry, _nothing_is({})] = Field(
        VolumeEntry(), description="a mapping such as {size_gb: 20}"
    )
    comfyui: Annotated[ComfyUIEntry, _nothing_is({})] = Field(
        ComfyUIEntry(), description="a mapping such as {args: [], env: []}"
    )
    models: _ListOf[ModelEntry] = Field(
        [], description="a list of models, each a mapping with path and url, huggingface or civitai"
    )
    custom_nodes: _ListOf[NodeEntry] = Field(
        [], description="a list of nodes, each a mapping with name, git, ref"
    )


# The entry at each place, its list positions left out.
ENTRIES: Final[dict[tuple[str, ...], type[BaseModel]]] = {
    (): ManifestEntry,
    ("volume",): VolumeEntry,
    ("comfyui",): ComfyUIEntry,
    ("models",): ModelEntry,
    ("models", "huggingface"): HuggingFaceEntry,
    ("custom_nodes",): NodeEntry,
}
