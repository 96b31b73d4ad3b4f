"""Workflows: ComfyUI graphs in API form whose values may be ``"__param:NAME__"``, kept on the volume.

A template is data: it is parsed first, and its placeholders are replaced in the tree, so that a number
stays a number and no text of a client's can become anything but that text.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from morpheus_boot.errors import Exit, MorpheusError, storage_error, storage_errors
from morpheus_boot.jobs.files import names_in, open_below, opened_folder
from morpheus_boot.jobs.json_values import Place, require_plain
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.boot")

Graph = dict[str, Any]

_PLACEHOLDER: Final = re.compile(r"__param:([A-Za-z_][A-Za-z0-9_]*)__")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SUFFIX: Final = ".json"
_SAID: Final = 20
# Where the files of a job go is ours to say.
OURS: Final = "output_path"


class WrongParameter(MorpheusError):
    """The workflow is unknown, or its parameters are not those that its template asks for."""

    exit_code = Exit.USAGE


class BrokenTemplate(MorpheusError):
    """A workflow on the volume is no ComfyUI graph in API form."""

    exit_code = Exit.STORAGE


@dataclass(frozen=True, slots=True)
class WorkflowName:
    """The name of a workflow: a word, never a path."""

    text: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.text):
            raise WrongParameter(
                "workflow_name",
                f"{self.text[:80]!r} is not a workflow's name",
                "use 1 to 64 of A-Z a-z 0-9 _ -, as in 'creation'",
            )

    def __str__(self) -> str:
        return self.text


def copy_workflows(source: Path, layout: Layout) -> None:
    """Brings the volume's copies up to date, each whole; those that are the same are left alone.

    A volume that can't be written keeps what it has, with a warning.
    """
    for workflow in sorted(source.glob("*.json")):
        copy = layout.workflows / workflow.name
        try:
            content = workflow.read_bytes()
            if not copy.is_file() or copy.read_bytes() != content:
                write_whole(copy, content)
        except OSError as error:
            kept = "the older copy stays" if copy.is_file() else "jobs can't name it"
            _LOG.warning("workflow %s can't be written (%s): %s", copy, error.strerror, kept)


def load_template(layout: Layout, name: WorkflowName) -> Graph:
    """The template ``name`` from the volume.

    Raises:
        WrongParameter: there is none of that name; says which there are.
        BrokenTemplate: it is no graph.
        StorageFailed: the volume fails.
    """
    file = layout.workflows / f"{name}{_SUFFIX}"
    try:
        fd = open_below(layout, layout.way(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as content:  # noqa: PTH123 - a descriptor
            graph = require_plain(json.load(content), _unfit)
    except FileNotFoundError:
        known = ", ".join(_known(layout)) or "none"
        raise WrongParameter(
            "workflow_name", f"there is no workflow '{name}'", f"there are: {known}"
        ) from None
    except OSError as error:
        raise storage_error(f"workflow {name}", file, error) from error
    except (ValueError, RecursionError) as error:
        raise BrokenTemplate(
            f"workflow {name}", "it is not JSON", f"export it from ComfyUI again ({error})"
        ) from error
    if not is_graph(graph):
        raise BrokenTemplate(
            f"workflow {name}",
            "it is not a graph in API form",
            "export it from ComfyUI with 'Export (API)'",
        )
    return dict(graph)


def _unfit(_place: Place, cause: str) -> NoReturn:
    raise ValueError(cause)


def is_graph(value: object) -> bool:
    """Whether ``value`` is a ComfyUI graph in API form: nodes by id, each with a class and inputs."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
            for node in value.values()
        )
    )


def parameters_of(template: Graph) -> tuple[str, ...]:
    """The parameters that ``template`` asks a client for, in its order."""
    return tuple(dict.fromkeys(name for name in _placeholders(template) if name != OURS))


def fill_template(
    template: Graph, name: WorkflowName, parameters: Mapping[str, Any], output_path: str
) -> Graph:
    """``template`` with each placeholder replaced by its parameter's JSON value.

    Raises WrongParameter that names the parameters that are missing and those that are unknown.
    """
    wanted = parameters_of(template)
    wrong = [f"{one} is missing" for one in wanted if one not in parameters]
    wrong += [_unknown(one) for one in parameters if one not in wanted]
    if wrong:
        raise WrongParameter(
            f"workflow {name}", in_short(wrong), f"its parameters are {', '.join(wanted)}"
        )
    filled: Graph = _replaced(template, {**parameters, OURS: output_path})
    return filled


def in_short(said: Sequence[str]) -> str:
    """What is wrong, on one line that a person reads: the first of it where there is much."""
    more = len(said) - _SAID
    return "; ".join((*said[:_SAID], *([f"and {more} more"] if more > 0 else ())))


def _unknown(name: str) -> str:
    return f"{name} is not the client's to give" if name == OURS else f"{name[:80]} is unknown"


def _placeholders(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        if match := _PLACEHOLDER.fullmatch(value):
            yield match[1]
    elif isinstance(value, dict):
        for one in value.values():
            yield from _placeholders(one)
    elif isinstance(value, list):
        for one in value:
            yield from _placeholders(one)


def _replaced(value: Any, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        match = _PLACEHOLDER.fullmatch(value)
        return parameters[match[1]] if match else value
    if isinstance(value, dict):
        return {name: _replaced(one, parameters) for name, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, parameters) for one in value]
    return value


def _known(layout: Layout) -> list[str]:
    with (
        storage_errors("workflows", layout.workflows),
        suppress(FileNotFoundError, NotADirectoryError),
        opened_folder(layout, layout.workflows) as folder,
    ):
        stems = (n.removesuffix(_SUFFIX) for n in names_in(folder) if n.endswith(_SUFFIX))
        return sorted(stem for stem in stems if _NAME.fullmatch(stem))
    return []
