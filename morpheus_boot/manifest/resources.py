"""The old scripts' resource list, one resource a line.

``GIT,name,url`` is a custom node, ``URL_AUTH,folder/file,url`` a model at a URL, and
``MODEL,folder,owner/repo,file`` a file of a repository on Hugging Face.
"""

from typing import Final

from pydantic import ValidationError

from morpheus_boot.errors import ManifestError, all_of
from morpheus_boot.manifest.document import field_name, shown
from morpheus_boot.manifest.imported import Imported, Note, source_fields
from morpheus_boot.manifest.reader import said
from morpheus_boot.manifest.values import ModelSpec

# The list names no version of a node, and not every repository's branch is called main.
_DEFAULT_BRANCH: Final = "HEAD"
_FORMS: Final = "GIT,name,url or URL_AUTH,folder/file,url or MODEL,folder,owner/repo,file"


class _NoResource(Exception):
    """A line has none of the forms."""


def read_resources(name: str, text: str) -> Imported:
    """Reads a list that errors call ``name``; of two models with one path, or nodes with one name, the first counts.

    Raises:
        ManifestError: its one mistake.
        SeveralErrors: of ManifestError, one a mistake, in the order of their lines.
    """
    imported, errors = Imported(), list[ManifestError]()
    for number, written in enumerate(map(str.strip, text.splitlines()), 1):
        if not written or written.startswith("#"):
            continue
        where = f"{name} line {number}"
        try:
            reason = _take(imported, number, [field.strip() for field in written.split(",")])
        except ValidationError as error:
            section = "models" if error.title == ModelSpec.__name__ else "custom_nodes"
            for details in error.errors(include_url=False):
                subject = f"{where}, {field_name(details['loc'])}"
                errors.append(ManifestError(subject, *said(details, (section, *details["loc"]))))
        except _NoResource:
            subject = f"{where}, {shown(written)}"
            errors.append(ManifestError(subject, "is no resource", f"write {_FORMS}"))
        else:
            if reason:
                imported.notes.append(Note(number, f"is left out: {reason}", written))
    if errors:
        raise all_of(errors)
    return imported


def _take(imported: Imported, number: int, fields: list[str]) -> str:
    """Takes one line in; returns why it is left out, "" where it is not. Raises ValidationError, _NoResource."""
    match fields:
        case ["GIT", name, url]:
            git = imported.public_url(number, url)
            is_first = imported.put_node({"name": name, "git": git, "ref": _DEFAULT_BRANCH})
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
    is_first = imported.put_model({"path": path, **source})
    return "" if is_first else "an earlier line has this path, from elsewhere"
