"""What a client asks for, in either form, parsed once: the Morpheus client's and worker-comfyui's."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.jobs.json_values import MAX_DEPTH, Place, plain_text, require_plain
from morpheus_boot.jobs.names import FileName, JobId
from morpheus_boot.jobs.record import Form
from morpheus_boot.jobs.workflows import (
    Graph,
    WorkflowName,
    fill_template,
    is_graph,
    load_template,
)
from morpheus_boot.volume.layout import Layout

_Body = TypeVar("_Body", bound=BaseModel)

_FIELDS_OF_OURS: Final = frozenset({"workflow_name", "worker_job_id"})
# One of them says what the body is.
_FORMS: Final = frozenset({"workflow_name", "workflow", "prompt"})
# A workflow's own depth comes on top of what is in its parameters.
_GRAPH_DEPTH: Final = 2 * MAX_DEPTH
# All that ComfyUI reads of a node: "is_changed": [NaN] comes along in the metadata of a picture.
_NODE_KEYS: Final = frozenset({"class_type", "inputs", "_meta"})
# What ComfyUI's own body has beside its graph, and says nothing here.
_PROMPT_KEYS: Final = frozenset(
    {"prompt", "prompt_id", "client_id", "number", "front", "extra_data"}
)
_API_KEYS: Final = ("comfy_org_api_key", "api_key_comfy_org")


class NoJob(MorpheusError):
    """The body is no job at all."""

    exit_code = Exit.USAGE


class WrongField(MorpheusError):
    """A field of the job is missing, wrong or not supported."""

    exit_code = Exit.USAGE


class TemplateBody(BaseModel):
    """The Morpheus client's form: a workflow's name, and its parameters beside it."""

    model_config = ConfigDict(extra="allow")

    workflow_name: str = Field(description="a workflow of morpheus_lib/workflows/, as 'creation'")
    worker_job_id: str | None = None


class ImageBody(BaseModel):
    """An input picture of worker-comfyui's form."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="what the graph's inputs call it", max_length=1000)
    image: str = Field(description="base64, or a data URI")


class GraphBody(BaseModel):
    """worker-comfyui's form: a graph in ComfyUI's API form, and input pictures."""

    model_config = ConfigDict(extra="forbid")

    workflow: dict[str, Any] = Field(
        description="nodes by id, each with class_type and inputs", min_length=1
    )
    images: list[ImageBody] | None = None
    worker_job_id: str | None = None


@dataclass(frozen=True, slots=True)
class InputImage:
    """A picture that comes with the job; ``given_name`` is how the graph names it."""

    given_name: str
    name: FileName
    content: bytes


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A graph to run, with the pictures that it loads; ``workflow`` where it came by name."""

    job: JobId
    form: Form
    workflow: str | None
    graph: Graph
    images: tuple[InputImage, ...] = ()


def parse_request(layout: Layout, body: bytes) -> JobRequest:
    """The job in ``body``, as it is or as RunPod wraps it: ``{"input": {...}}``; its workflow is the volume's.

    Raises:
        NoJob: it is no JSON object.
        WrongField, WrongParameter, InvalidName: a field is wrong; names it.
        BrokenTemplate, StorageFailed: the workflow can't be read.
    """
    document = _document(body)
    if "workflow_name" in document:
        request = _by_name(layout, document)
    elif "workflow" in document:
        request = _graph_job(document)
    else:
        raise WrongField(
            "workflow_name",
            "neither it nor 'workflow' is there",
            "name a workflow, or send a graph in ComfyUI's API form",
        )
    # What stands in many places may have become large.
    require_plain(request.graph, _refuse_in_graph, _GRAPH_DEPTH)
    return request


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except RecursionError:
        _refuse((), f"it is nested more than {MAX_DEPTH} deep")
    except ValueError as error:
        raise NoJob("job", f"the body is not JSON ({error})", "send a JSON object") from error
    if isinstance(document, dict) and "input" in document and not _FORMS & set(document):
        # RunPod's own fields stand beside it: id, webhook, policy, s3Config.
        document = document["input"]
    if not isinstance(document, dict):
        raise NoJob("job", "it is not a JSON object", "send {...}")
    held: dict[str, Any] = require_plain(_as_graph_body(document), _refuse)
    return held


def _as_graph_body(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, its graph under our name for it and without what ComfyUI ignores in it."""
    if isinstance(document.get("prompt"), dict) and not {"workflow_name", "workflow"} & set(
        document
    ):
        ours = {name: value for name, value in document.items() if name not in _PROMPT_KEYS}
        document = {**ours, "workflow": document["prompt"]}
    graph = document.get("workflow")
    if not isinstance(graph, dict):
        return document
    nodes = {
        node_id: {k: v for k, v in node.items() if k in _NODE_KEYS}
        if isinstance(node, dict)
        else node
        for node_id, node in graph.items()
    }
    return {**document, "workflow": nodes}


def _refuse(place: Place, cause: str) -> NoReturn:
    field = ".".join(_shown(part) for part in place) or "job"
    raise WrongField(field, cause, "send what ComfyUI can take")


def _refuse_in_graph(place: Place, cause: str) -> NoReturn:
    _refuse(("workflow", *place), cause)


def _shown(part: str) -> str:
    return plain_text(part[:80])


def _by_name(layout: Layout, document: dict[str, Any]) -> JobRequest:
    if "workflow" in document:
        raise WrongField(
            "workflow", "'workflow_name' is there too", "name a workflow or send a graph, not both"
        )
    given = _parsed(TemplateBody, document)
    job, name = _job_id(given.worker_job_id), WorkflowName(given.workflow_name)
    parameters = {n: v for n, v in document.items() if n not in _FIELDS_OF_OURS}
    template = load_template(layout, name)
    graph = fill_template(template, name, parameters, f"{job}/output/{name}")
    return JobRequest(job, Form.TEMPLATE, name.text, graph)


def _graph_job(document: dict[str, Any]) -> JobRequest:
    for key in _API_KEYS:
        if key in document:
            raise WrongField(
                key, "API nodes are not supported", "leave it out, and use nodes that run here"
            )
    given = _parsed(GraphBody, document)
    if not is_graph(given.workflow):
        raise WrongField(
            "workflow",
            "it is not a graph in API form (nodes by id, each with class_type and inputs)",
            "export it from ComfyUI with 'Export (API)'",
        )
    job = _job_id(given.worker_job_id)
    images = tuple(_image(n, image) for n, image in enumerate(given.images or ()))
    _refuse_twice(images)
    # ComfyUI's page writes the folder's name behind a picture's.
    names = {
        f"{image.given_name}{folder}": f"{job}/input/{image.name} [output]"
        for image in images
        for folder in ("", " [input]")
    }
    return JobRequest(job, Form.GRAPH, None, _with_images(given.workflow, names), images)


def _with_images(graph: Graph, names: Mapping[str, str]) -> Graph:
    """``graph`` with every input that is one of ``names`` replaced by what that stands for."""
    return {
        node_id: {
            **node,
            "inputs": {
                name: names.get(value, value) if isinstance(value, str) else value
                for name, value in node["inputs"].items()
            },
        }
        for node_id, node in graph.items()
    }


def _job_id(given: str | None) -> JobId:
    return JobId(given) if given else JobId.new()


def _image(number: int, given: ImageBody) -> InputImage:
    field = f"images.{number}.image"
    text = given.image.partition(",")[2] if given.image.startswith("data:") else given.image
    try:
        # Encoders break their lines at 76 characters.
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WrongField(field, "it is not base64", "send base64 or a data URI of it") from error
    if not content:
        raise WrongField(field, "it is empty", "send the picture's bytes as base64")
    return InputImage(given.name, FileName.from_client(given.name), content)


def _refuse_twice(images: tuple[InputImage, ...]) -> None:
    seen: set[str] = set()
    for number, image in enumerate(images):
        if image.name.text in seen:
            raise WrongField(
                f"images.{number}.name", f"'{image.name}' is there twice", "give each its own name"
            )
        seen.add(image.name.text)


def _parsed(model: type[_Body], document: dict[str, Any]) -> _Body:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first, *others = error.errors(include_input=False, include_url=False)
        field = ".".join(_shown(str(part)) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        cause = "it is not supported" if unknown else first["msg"].lower()
        more = f" (and {len(others)} more)" if others else ""
        raise WrongField(field, f"{cause}{more}", "see docs/jobs.md for the fields") from error
