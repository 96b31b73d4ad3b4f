"""The old scripts' resource list, one resource a line.

``GIT,name,url`` is a custom node, ``URL_AUTH,folder/file,url`` a model at a URL, and
``MODEL,folder,owner/repo,file`` a file of a repository on Hugging Face.
"""

from typing import Final

from pydantic import TypeAdapter, ValidationError

from morpheus_boot.errors import ManifestError, all_of
from morpheus_boot.manifest.document import field_name, shown
from morpheus_boot.manifest.imported import Imported, LeftOut, source_fields
from morpheus_boot.manifest.reader import said
from morpheus_boot.manifest.values import ModelSpec, NodeSpec

# The list names no version of a node, and not every repository's branch is called main.
_DEFAULT_BRANCH: Final = "HEAD"
_FORMS: Final = "GIT,name,url or URL_AUTH,folder/file,url or MODEL,folder,owner/repo,file"
_MODEL: Final = TypeAdapter(ModelSpec)
_NODE: Final = TypeAdapter(NodeSpec)


def read_resources(name: str, content: bytes) -> Imported:
    """Reads a list that errors call ``name``; of two models with one path, or nodes with one name, the first counts.

    Raises:
        ManifestError: its one mistake, or that it is not UTF-8.
        SeveralErrors: of ManifestError, one a mistake, in the order of their lines.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{name} line {line}", "is not UTF-8", "save it as UTF-8") from error
    imported, errors = Imported(), list[ManifestError]()
    for number, written in enumerate(map(str.strip, text.splitlines()), 1):
        if not written or written.startswith("#"):
            continue
        where = f"{name} line {number}"
        try:
            reason = _take(imported, number, [field.strip() for field in written.split(",")])
        except ValidationError as error:
            section = ("models",) if error.title == ModelSpec.__name__ else ("custom_nodes",)
            for details in error.errors(include_url=False):
                subject = f"{where}, {field_name(details['loc'])}"
                errors.append(ManifestError(subject, *said(details, (*section, *details["loc"]))))
        except _NoResource:
            subject = f"{where}, {shown(written)}"
            errors.append(ManifestError(subject, "is no resource", f"write {_FORMS}"))
        else:
            if reason:
                imported.left_out.append(LeftOut(number, written, reason))
    if errors:
        raise all_of(errors)
    return imported


class _NoResource(Exception):
    """The line has none of the forms."""


def _take(imported: Imported, number: int, fields: list[str]) -> str:
    """Takes one line in; returns why it is left out, "" where it is not. Raises ValidationError, _NoResource."""
    match fields:
        case ["GIT", name, url]:
            git = imported.public_url(number, url)
            node = _NODE.validate_python({"name": name, "git": git, "ref": _DEFAULT_BRANCH})
            is_first = imported.nodes.setdefault(name, node) == node
            return "" if is_first else "an earlier line has this name, from elsewhere"
        case ["URL_AUTH", _, url] if "://" not in url:
            return f"{shown(url)} is no URL"
        case ["URL_AUTH", path, url]:
            source = source_fields(imported.public_url(number, url))
        case ["MODEL", folder, repo, file]:
            path = f"{folder}/{file.rpartition('/')[2]}"
            source = {"huggingface": {"repo": repo, "file": file}}
        case _:
            raise _NoResource
    model = _MODEL.validate_python({"path": path, **source})
    is_first = imported.models.setdefault(path, model) == model
    return "" if is_first else "an earlier line has this path, from elsewhere"
