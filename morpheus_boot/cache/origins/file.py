"""A model that lies elsewhere in this container, as file:///path."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from morpheus_boot.cache.origins.origin import Address, Resolved
from morpheus_boot.cache.parts import Version
from morpheus_boot.errors import OriginUnavailable, storage_error
from morpheus_boot.manifest import UrlSource


class FileOrigin:
    """A file; its size and mtime are its version."""

    def __init__(self, subject: str, source: UrlSource) -> None:
        self.subject = subject
        self._source = source

    def resolve(self) -> Resolved:
        """Stats the file."""
        path = file_path(self._source.url.reveal())
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise OriginUnavailable(
                self.subject, f"there is no file {path}", "check its url in models.yaml"
            ) from error
        except OSError as error:
            raise storage_error(self.subject, path, error) from error
        etag = f'"{stat.st_mtime_ns}-{stat.st_size}"'
        version = Version(self._source.identity, stat.st_size, sha256=None, etag=etag)
        return Resolved(Address(self._source.url), version)


def file_path(url: str) -> Path:
    """The path of a file: URL."""
    return Path(unquote(urlsplit(url).path))
