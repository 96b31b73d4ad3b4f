"""Ways in which an origin misbehaves: small frozen values that compose.

``origin.misbehave("/m", WeakEtag(), Truncated(at=1000))`` applies them in that order to each matching request.
"""

from tests.testbed.faults.answers import (
    LOGIN_PAGE,
    Changed,
    Empty,
    IgnoresIfRange,
    IgnoresRange,
    LoginPage,
    NoAnswer,
    NoEtag,
    NoHead,
    Redirect,
    Status,
    WeakEtag,
)
from tests.testbed.faults.base import Fault
from tests.testbed.faults.bodies import (
    Chunked,
    Corrupt,
    Gate,
    Gzip,
    Late,
    NoLength,
    ResetAt,
    Stalled,
    TooMuch,
    Trickling,
    Truncated,
    WrongRange,
    WrongTotal,
)

__all__ = [
    "LOGIN_PAGE",
    "Changed",
    "Chunked",
    "Corrupt",
    "Empty",
    "Fault",
    "Gate",
    "Gzip",
    "IgnoresIfRange",
    "IgnoresRange",
    "Late",
    "LoginPage",
    "NoAnswer",
    "NoEtag",
    "NoHead",
    "NoLength",
    "Redirect",
    "ResetAt",
    "Stalled",
    "Status",
    "TooMuch",
    "Trickling",
    "Truncated",
    "WeakEtag",
    "WrongRange",
    "WrongTotal",
]
