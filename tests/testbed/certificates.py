"""Certificates that openssl(1) makes for the testbed: one to be trusted, one for another host."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.testbed.server import ADDRESSES

RIGHT_NAMES = ",".join((*(f"IP:{address}" for address in ADDRESSES), "DNS:localhost"))
WRONG_NAMES = "DNS:wrong.invalid"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A self-made certificate; who trusts the file ``certificate`` trusts the server that has it."""

    certificate: Path
    key: Path

    @classmethod
    def below(cls, folder: str | Path, names: str = RIGHT_NAMES) -> Self:
        """The one that lies in ``folder``, made there if need be, for ``names`` (openssl's subjectAltName)."""
        made = cls(Path(folder) / "certificate.pem", Path(folder) / "key.pem")
        if not made.certificate.exists():
            Path(folder).mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "ec"),
                    *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"),
                    *("-subj", "/CN=testbed", "-addext", f"subjectAltName={names}"),
                    *("-keyout", made.key, "-out", made.certificate),
                ],
                check=True,
                capture_output=True,
            )
        return made

    def context(self) -> ssl.SSLContext:
        """What a server wraps its connections with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context
