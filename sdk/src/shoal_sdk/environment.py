"""The variables SHOAL_SDK_* a client can be set up by: name, meaning and how each is read, in one table."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from shoal_sdk.errors import SettingsError
from shoal_sdk.options import PREFIX, OnFull, is_address
from shoal_sdk.security import MECHANISMS, Security

PREFIX_OF_NAMES = "SHOAL_SDK_"
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

Reader = tuple[str, Callable[[str], Any]]
"""What is expected, in words, and how a text is read; a ValueError if it is not that."""


@dataclass(frozen=True, slots=True)
class Variable:
    """How one variable becomes the argument of the client, or of its Security, named `argument`."""

    argument: str
    meaning: str
    expected: str
    read: Callable[[str], Any]
    required: bool = False
    security: bool = False
    secret: bool = False
    """Whether even a wrong value must not be shown."""
    name: str = ""


def _text(pattern: str = r".+", expected: str = "a text of one line") -> Reader:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return expected, read


def _truth() -> Reader:
    def read(text: str) -> bool:
        if text.lower() not in _TRUTHS:
            raise ValueError
        return _TRUTHS[text.lower()]

    return "one of " + ", ".join(_TRUTHS), read


def _whole(low: int) -> Reader:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < low:
            raise ValueError
        return int(text)

    return f"a whole number of at least {low}", read


def _seconds() -> Reader:
    def read(text: str) -> float:
        number = float(text)
        if not math.isfinite(number) or number < 0:
            raise ValueError
        return number

    return "a number of at least 0", read


def _one_of(choices: tuple[str, ...]) -> Reader:
    return _text("|".join(map(re.escape, choices)), "one of " + ", ".join(choices))


def _addresses() -> Reader:
    expected = "host:port, or several with commas between"

    def read(text: str) -> list[str]:
        parts = [part.strip() for part in text.split(",")]
        if not all(map(is_address, parts)):
            raise ValueError
        return parts

    return expected, read


def _variable(argument: str, reader: Reader, meaning: str, **more: Any) -> Variable:
    name = PREFIX_OF_NAMES + more.pop("name", argument).upper()
    return Variable(argument, meaning, *reader, name=name, **more)


VARIABLES = (
    _variable("bootstrap", _addresses(), "Kafka's addresses", required=True),
    _variable("app", _text(r".{1,256}"), "the application's name", required=True),
    _variable("prefix", _text(PREFIX, "1 to 100 of A-Z a-z 0-9 . _ -"), "what the topic's name begins with"),
    _variable("max_events", _whole(1), "events held in memory"),
    _variable("max_bytes", _whole(1), "bytes held in memory"),
    _variable("linger_s", _seconds(), "how long an event may wait for company"),
    _variable("on_full", _one_of(get_args(OnFull)), "what a call does when there is no room"),
    _variable("strict", _truth(), "raise instead of dropping"),
    _variable("disabled", _truth(), "check arguments, send nothing; bootstrap may then be missing"),
    _variable("sync", _truth(), "return when Kafka has the event"),
    _variable("sync_timeout_s", _seconds(), "or after so long"),
    _variable("spool", _text(expected="a path"), "folder of the disk spool"),
    _variable("spool_max_bytes", _whole(1 << 20), "bytes of a process in it"),
    _variable("spool_fsync", _truth(), "survive the machine, not only the process"),
    _variable("tls", _truth(), "encrypt", security=True),
    _variable("ca", _text(expected="a path"), "PEM file of the authorities", security=True, name="tls_ca"),
    _variable(
        "certificate",
        _text(expected="a path"),
        "PEM file of the client's certificate",
        security=True,
        name="tls_certificate",
    ),
    _variable("key", _text(expected="a path"), "PEM file of its key", security=True, name="tls_key"),
    _variable("key_password", _text(), "opens the key", security=True, secret=True, name="tls_key_password"),
    _variable("mechanism", _one_of(MECHANISMS), "how to log in", security=True, name="sasl_mechanism"),
    _variable("username", _text(), "who", security=True, name="sasl_username"),
    _variable("password", _text(), "the password", security=True, secret=True, name="sasl_password"),
)
"""Every variable, in the order of the arguments; README.md's table agrees with it by test."""


def arguments_in(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a client that `env` names; SettingsError with every problem at once."""
    problems: list[str] = []
    client: dict[str, Any] = {}
    security: dict[str, Any] = {}
    for variable in VARIABLES:
        text = env.get(variable.name, "")
        # A secret may begin or end with a blank; nothing else means one.
        text = text if variable.secret else text.strip()
        if not text:
            continue
        try:
            (security if variable.security else client)[variable.argument] = variable.read(text)
        except ValueError:
            got = "something else" if variable.secret else repr(text)
            problems.append(f"{variable.name}: expected {variable.expected}, got {got}")
    if client.get("disabled"):
        client.setdefault("bootstrap", ["nowhere:1"])
    broken = " ".join(problems)
    problems += [
        f"{variable.name}: not set; {variable.meaning}"
        for variable in VARIABLES
        if variable.required and variable.argument not in client and f"{variable.name}:" not in broken
    ]
    problems += _unknown(env)
    if security and security != {"tls": False}:
        try:
            client["security"] = Security(**security)
        except ValueError as error:
            problems.append(in_variables(str(error)))
    if problems:
        raise SettingsError(problems)
    return client


def in_variables(message: str) -> str:
    """Put the variables' names in place of the arguments' in a complaint about them."""
    for variable in VARIABLES:
        if variable.security:
            message = message.replace(f"security.{variable.argument}", variable.name)
        message = re.sub(rf"\b{variable.argument}=", f"{variable.name}=", message)
    return message


def _unknown(env: Mapping[str, str]) -> list[str]:
    known = [variable.name for variable in VARIABLES]
    problems = []
    for name in sorted(env):
        if name.startswith(PREFIX_OF_NAMES) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return problems
