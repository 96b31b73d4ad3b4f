"""The file -> Manifest, or all of its mistakes at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import ManifestError, all_of
from morpheus_boot.manifest.agreement import find_disagreements
from morpheus_boot.manifest.document import read_document
from morpheus_boot.manifest.schema import ManifestEntry
from morpheus_boot.manifest.tree import Document
from morpheus_boot.manifest.validation import validate
from morpheus_boot.manifest.values import Manifest, ModelSpec, NodeSpec

_NAME_ANOTHER: Final = "name one that can be read with --models or MORPHEUS_MODELS"
_SAVE_AS_UTF8: Final = "save it as UTF-8"


def read_manifest(path: Path, environ: Mapping[str, str]) -> Manifest:
    """Reads the manifest at ``path``; ``${NAME}`` in its values comes from ``environ``.

    Raises:
        ManifestError: its one mistake, or why it can't be read at all.
        SeveralErrors: of ManifestError, one a mistake, in the order of their lines.
    """
    document = read_document(str(path), _read_text(path), environ)
    entries = validate(document)
    mistakes = [*document.mistakes, *find_disagreements(document)]
    if isinstance(entries, ManifestEntry):
        if not mistakes:
            return _manifest(path, document, entries)
    else:
        mistakes += entries
    mistakes.sort(key=lambda mistake: mistake.line)
    raise all_of([mistake.error(str(path)) for mistake in mistakes])


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ManifestError(str(path), "there is no such file", _NAME_ANOTHER) from error
    except OSError as error:
        cause = f"can't be read ({(error.strerror or str(error)).lower()})"
        raise ManifestError(str(path), cause, _NAME_ANOTHER) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{path} line 1", "is UTF-16", _SAVE_AS_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        cause = f"holds the byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise ManifestError(f"{path} line {line}", cause, _SAVE_AS_UTF8) from error


def _manifest(path: Path, document: Document, entries: ManifestEntry) -> Manifest:
    return Manifest(
        path=path,
        size_gb=entries.volume.size_gb,
        comfyui_args=tuple(entries.comfyui.args),
        comfyui_env=tuple(entries.comfyui.env),
        models=tuple(
            ModelSpec(
                path=entry.path,
                source=source,
                sha256=entry.sha256.lower() if entry.sha256 else None,
                size_bytes=entry.size,
                required=entry.required,
                preload=entry.preload,
                links=tuple(entry.links),
                line=document.line(("models", position)),
            )
            for position, entry in enumerate(entries.models)
            for source in entry.sources()
        ),
        nodes=tuple(
            NodeSpec(
                name=entry.name,
                git=Secret(entry.git),
                ref=entry.ref,
                required=entry.required,
                line=document.line(("custom_nodes", position)),
            )
            for position, entry in enumerate(entries.custom_nodes)
        ),
        secrets=document.secrets,
        variables=document.variables,
    )
