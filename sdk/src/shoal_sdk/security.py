"""How to reach a Kafka that does not talk to everybody: TLS, a name and a password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, fields
from os import PathLike, fspath
from typing import Any, Literal, get_args

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
MECHANISMS = get_args(Mechanism)

_SECRETS = {"password", "key_password"}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Security:
    """TLS, SASL or both. Wrong combinations and unreadable files are a ValueError naming the field.

    `tls=True` encrypts and checks the broker's certificate and name, against `ca` (a PEM file) or
    else the system's authorities; `certificate` and `key` (PEM files) are the client's own, for
    brokers that ask for one. Any of the three implies `tls`. `username` and `password` log in by
    `mechanism`; without TLS, PLAIN shows the password to the network. Files are read again at every
    connection, so they may be renewed. A repr shows no secret.
    """

    tls: bool = False
    ca: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    key_password: str | None = None
    mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("security.key: a key without its certificate; pass certificate=")
        if self.key_password is not None and self.certificate is None:
            raise ValueError("security.key_password: nothing to open with it; pass certificate= and key=")
        if self.mechanism is None:
            for field, value in (("username", self.username), ("password", self.password)):
                if value is not None:
                    raise ValueError(f"security.{field}: needs mechanism=, one of {', '.join(MECHANISMS)}")
        else:
            if self.mechanism not in MECHANISMS:
                raise ValueError(
                    f"security.mechanism={self.mechanism!r}: expected one of {', '.join(MECHANISMS)}"
                )
            for field, value in (("username", self.username), ("password", self.password)):
                if not isinstance(value, str) or not value:
                    raise ValueError(
                        f"security.{field}: {self.mechanism} needs it, as text that is not empty"
                    )
        if self.ca is not None or self.certificate is not None:
            object.__setattr__(self, "tls", True)
        if not self.tls and self.mechanism is None:
            raise ValueError("security: neither TLS nor a mechanism; leave it out for an open broker")
        self.options()

    def options(self) -> dict[str, Any]:
        """Return the Kafka client's arguments, files read now; a ValueError if one cannot be used."""
        found: dict[str, Any] = {"security_protocol": self._protocol()}
        if self.tls:
            found["ssl_context"] = self._context()
        if self.mechanism is not None:
            found["sasl_mechanism"] = self.mechanism
            found["sasl_plain_username"] = self.username
            found["sasl_plain_password"] = self.password
        return found

    def _protocol(self) -> str:
        if self.mechanism is None:
            return "SSL"
        return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else fspath(self.ca))
        except OSError as error:
            raise ValueError(f"security.ca={str(self.ca)!r}: no readable PEM file: {error}") from None
        if self.certificate is not None:
            key = None if self.key is None else fspath(self.key)
            try:
                # An empty password rather than none: OpenSSL would ask for one at the terminal.
                context.load_cert_chain(fspath(self.certificate), key, self.key_password or "")
            except OSError as error:
                where = f"certificate={str(self.certificate)!r}, key={str(self.key)!r}"
                raise ValueError(f"security: {where}: no certificate with its key: {error}") from None
        return context

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value is not False:
                shown.append(f"{field.name}={'***' if field.name in _SECRETS else value!r}")
        return f"Security({', '.join(shown)})"
