"""What a resource list gave, written as models.yaml."""

from collections.abc import Iterator, Mapping

import yaml

from morpheus_boot.config.redact import Redactor
from morpheus_boot.manifest.resources import Resources
from morpheus_boot.manifest.values import CivitaiSource, HuggingFaceSource, ModelSpec, NodeSpec

_HEAD = """\
# Made from {name}. What each field means: docs/models.md. `pin` fills in digests, sizes and commits.

version: 1

# The volume as bought, so that what does not fit is refused before it is fetched.
# volume: {{size_gb: 20}}
"""


def manifest_text(name: str, resources: Resources) -> str:
    """models.yaml for the resources of the list called ``name``; what was left out stands there as comments."""
    return "".join(line + "\n" for line in _lines(name, resources))


def _lines(name: str, resources: Resources) -> Iterator[str]:
    yield from _HEAD.format(name=name).splitlines()
    if resources.models:
        yield from ("", "models:")
    for model in resources.models:
        yield from _model_lines(model)
    if resources.nodes:
        yield from ("", "custom_nodes:")
    for node in resources.nodes:
        yield from _node_lines(node)
    redact = Redactor()
    for left_out in resources.left_out:
        yield from ("", f"# Left out, line {left_out.line}: {left_out.reason}.")
        yield f"#   {redact(left_out.text)}"


def _model_lines(model: ModelSpec) -> Iterator[str]:
    yield f"  - path: {_yaml(model.path)}"
    match model.source:
        case CivitaiSource(version_id):
            yield f"    civitai: {version_id}"
        case HuggingFaceSource(repo, file, revision):
            yield f"    huggingface: {_yaml({'repo': repo, 'file': file, 'revision': revision})}"
        case url:
            yield f"    url: {_yaml(url.url.reveal())}"


def _node_lines(node: NodeSpec) -> Iterator[str]:
    yield f"  - name: {_yaml(node.name)}"
    yield f"    git: {_yaml(node.git.reveal())}"
    yield f"    ref: {node.ref} # the default branch: it moves"


def _yaml(value: str | Mapping[str, str]) -> str:
    """``value`` on one line, quoted where YAML wants it so."""
    written: str = yaml.safe_dump(
        value,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return written.removesuffix("...\n").rstrip("\n")
