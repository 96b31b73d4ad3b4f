"""What a misbehaving origin makes of the request, has, or answers instead of the file."""

import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final

from tests.testbed.content import Content, literal
from tests.testbed.exchange import Reply, Request, Reset, Resource, Wait, plain, resource_of
from tests.testbed.faults.base import Fault

LOGIN_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>\n"
)


# What it makes of the request


@dataclass(frozen=True, slots=True)
class IgnoresRange(Fault):
    """Answers 200 with the whole file, whatever range was asked for."""

    def request(self, request: Request) -> Request:
        return request.without("range", "if-range")


@dataclass(frozen=True, slots=True)
class IgnoresIfRange(Fault):
    """Answers 206 with a range of another version than the one asked for."""

    def request(self, request: Request) -> Request:
        return request.without("if-range")


# What it has


@dataclass(frozen=True, slots=True)
class NoEtag(Fault):
    """Sends no ETag; ``last_modified`` False: no validator at all."""

    last_modified: bool = True

    def resource(self, resource: Resource) -> Resource:
        kept_s = resource.last_modified_s if self.last_modified else None
        return replace(resource, etag=None, last_modified_s=kept_s)


@dataclass(frozen=True, slots=True)
class WeakEtag(Fault):
    """Sends its ETag as a weak one, which validates no range."""

    def resource(self, resource: Resource) -> Resource:
        return replace(resource, etag=f"W/{resource.etag}")


@dataclass(frozen=True, slots=True)
class Changed(Fault):
    """Has another file by now, under another ETag."""

    content: Content

    def resource(self, resource: Resource) -> Resource:
        return resource_of(self.content)


# What it answers instead


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answers this status. ``retry_after_s`` as seconds, or as a date where ``as_date``."""

    status: int
    retry_after_s: int | None = None
    as_date: bool = False
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    def reply(self, request: Request, reply: Reply) -> Reply:
        headers = {}
        if self.retry_after_s is not None:
            date = formatdate(time.time() + self.retry_after_s, usegmt=True)
            headers["Retry-After"] = date if self.as_date else str(self.retry_after_s)
        return plain(
            self.status,
            self.body or f"{self.status}\n",
            content_type=self.content_type,
            headers=headers,
        )


@dataclass(frozen=True, slots=True)
class NoHead(Fault):
    """Answers 405 to HEAD, and to nothing else."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        return plain(405, headers={"Allow": "GET"}) if request.method == "HEAD" else reply


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Redirects to ``location``: a path, a URL, or the very path that was asked for (a loop)."""

    location: str
    status: int = 302

    def reply(self, request: Request, reply: Reply) -> Reply:
        return plain(self.status, headers={"Location": self.location})


@dataclass(frozen=True, slots=True)
class LoginPage(Fault):
    """Answers 200 with an HTML page, also where it calls that a file."""

    content_type: str = "text/html; charset=utf-8"

    def reply(self, request: Request, reply: Reply) -> Reply:
        page = Resource(literal(LOGIN_PAGE), None, None, self.content_type)
        return page.reply(request.without("range"))


@dataclass(frozen=True, slots=True)
class Empty(Fault):
    """Answers 200 with no body."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply.with_headers(Content_Range=None), status=200, body=(), length_bytes=0)


@dataclass(frozen=True, slots=True)
class NoAnswer(Fault):
    """Ends the connection by RST (or, ``silent``, says nothing for ever) before any answer."""

    silent: bool = False

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, before=(Wait() if self.silent else Reset(),))
