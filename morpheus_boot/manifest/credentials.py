"""A URL's credentials, moved into the environment: models.yaml is committed, and tokens must not be."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from morpheus_boot.config.redact import is_secret_field

CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com"})


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """A URL that may be committed; ``variables`` are to hold what stood in it."""

    text: str
    variables: tuple[str, ...]


def public_url(url: str) -> PublicUrl:
    """``url`` with ``${NAME}`` for each credential in it.

    One of Civitai's goes without replacement: CIVITAI_TOKEN is sent there as a header.
    """
    parts = urlsplit(url)
    variables: list[str] = []
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user and not _is_reference(user):
        variables.append(_variable(parts, "login"))
        user = f"${{{variables[-1]}}}"
    fields = []
    for field in parts.query.split("&"):
        name, _, value = field.partition("=")
        if not is_secret_field(field):
            fields.append(field)
        elif parts.hostname in CIVITAI_HOSTS:
            variables += [] if _is_reference(value) else ["CIVITAI_TOKEN"]
        elif _is_reference(value):
            fields.append(field)
        else:
            variables.append(_variable(parts, name))
            fields.append(f"{name}=${{{variables[-1]}}}")
    public = parts._replace(netloc=f"{user}{at}{host}", query="&".join(fields))
    return PublicUrl(urlunsplit(public), tuple(variables))


def _is_reference(text: str) -> bool:
    return re.search(r"\$\{\w+\}", text) is not None


def _variable(parts: SplitResult, name: str) -> str:
    return re.sub(r"\W", "_", f"{parts.hostname}_{name}").upper()
