"""Tokens and origins: whether they are there, and whether the hosts that models and nodes come from answer."""

import email.utils
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import requests

from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.origins.http import reason
from morpheus_boot.doctor.check import Finding, Patient, error, ok, warning
from morpheus_boot.errors import MorpheusError
from morpheus_boot.manifest import CIVITAI_HOSTS, CivitaiSource, HuggingFaceSource, UrlSource
from morpheus_boot.work.background import together

_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 8
# TLS certificates and signed URLs fail with a clock that is minutes off.
_MOST_SKEW_S: Final = 120.0


def look_at_tokens(patient: Patient) -> Iterator[Finding]:
    """Which tokens are set; Hugging Face's is shown to it. None is sent anywhere else."""
    settings = patient.settings
    # Those are named already.
    wrong = {error.subject for error in settings.wrong}
    sources = [model.source for model in patient.manifest.models]
    kinds = {type(source) for source in sources}
    hosts = {source.host for source in sources if isinstance(source, UrlSource)}
    if settings.morpheus_token is not None:
        yield ok("tokens", "MORPHEUS_TOKEN is set: both ports ask for it")
    elif "MORPHEUS_TOKEN" not in wrong:
        yield warning(
            "tokens",
            "MORPHEUS_TOKEN is not set: whoever reaches the ports may use them",
            "set it to a long random text",
        )
    if settings.hf_token is not None:
        yield _hugging_face_token(settings.hf_endpoint, settings.hf_token.reveal())
    elif (
        HuggingFaceSource in kinds or urlsplit(settings.hf_endpoint).hostname in hosts
    ) and "HF_TOKEN" not in wrong:
        yield ok("tokens", "HF_TOKEN is not set: public repositories alone")
    if settings.civitai_token is not None:
        yield ok("tokens", "CIVITAI_TOKEN is set")
    elif (CivitaiSource in kinds or hosts & CIVITAI_HOSTS) and "CIVITAI_TOKEN" not in wrong:
        yield warning(
            "tokens", "CIVITAI_TOKEN is not set, and many of its models want one", "set it"
        )


def _hugging_face_token(endpoint: str, token: str) -> Finding:
    url = f"{endpoint}/api/whoami-v2"
    try:
        answer = requests.get(
            url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            allow_redirects=False,
        )
        said = answer.json() if answer.ok else None
    except (requests.RequestException, ValueError) as failure:
        return warning("tokens", f"HF_TOKEN can't be tried ({reason(failure)})", "see origins")
    if answer.status_code in (401, 403):
        return error(
            "tokens",
            "Hugging Face does not know HF_TOKEN",
            f"make one at {endpoint}/settings/tokens",
        )
    name = said.get("name") if isinstance(said, dict) else None
    return ok("tokens", f"HF_TOKEN is {name}'s" if name else "HF_TOKEN is set")


def look_at_origins(patient: Patient) -> Iterator[Finding]:
    """Whether each host answers at all, whatever it says; and whether its clock is ours.

    Where every model is there, a boot may do without them.
    """
    hosts = _hosts(patient)
    dates = []
    for url, answer in zip(hosts, together(_ask, hosts, _AT_ONCE), strict=True):
        if isinstance(answer, requests.Response):
            yield ok("origins", f"{url} answers")
            dates.append(_parsed(answer.headers.get("Date")))
        else:
            verdict = error if _fetches(patient) else warning
            yield verdict(
                "origins",
                f"{url} can't be reached ({reason(answer)})",
                "check the network and DNS: RunPod's Global Networking has no public DNS",
            )
    yield _clock(next((date for date in dates if date is not None), None))


def _ask(url: str) -> requests.Response | requests.RequestException:
    try:
        return requests.head(url, timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as failure:
        return failure


def _fetches(patient: Patient) -> bool:
    try:
        return bool(patient.survey.result().wanted)
    except (MorpheusError, OSError):
        return True  # the volume's own check says why it can't be looked at


def _clock(said: float | None) -> Finding:
    """How this clock stands to what an origin ``said``, in seconds since the epoch."""
    if said is None:
        return warning("clock", "not compared: no origin says what time it is", "see origins")
    skew_s = time.time() - said
    if abs(skew_s) <= _MOST_SKEW_S:
        return ok("clock", "as the origins' clocks")
    how = "ahead" if skew_s > 0 else "behind"
    return error("clock", f"{abs(skew_s):.0f} s {how}: certificates may fail", "take another host")


def _parsed(date: str | None) -> float | None:
    """A Date header as seconds since the epoch; None where it says nothing."""
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None


def _hosts(patient: Patient) -> list[str]:
    """The scheme and host of each origin over http, each once."""
    urls = []
    for model in patient.manifest.models:
        match model.source:
            case HuggingFaceSource():
                urls.append(patient.settings.hf_endpoint)
            case CivitaiSource():
                urls.append(Credentials().civitai_endpoint)
            case web:
                urls.append(web.url.reveal())
    urls += [node.git.reveal() for node in patient.manifest.nodes]
    parts = (urlsplit(url) for url in urls)
    bare = (
        f"{p.scheme}://{p.netloc.rpartition('@')[2]}"
        for p in parts
        if p.scheme in ("http", "https")
    )
    return list(dict.fromkeys(bare))
