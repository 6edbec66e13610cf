"""Every setting Shoal reads from the environment: name, default, bounds and meaning, in one table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from errors import SettingsError

DAY_MS = 86_400_000
OTHERS = ("SHOAL_TEST_", "SHOAL_SDK_", "SHOAL_DEMO_", "SHOAL_BENCH_")
"""Prefixes of variables other programs of this project read; they are not typing errors of ours."""


class SecretUrl:
    """A URL that may hold a password: shown without it, wherever it is shown."""

    # No dataclass: those can be turned into dictionaries, which are then logged.
    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def reveal(self) -> str:
        """Return the URL itself, for whoever connects."""
        return self._url

    def __str__(self) -> str:
        parts = urlsplit(self._url)
        credentials, at, host = parts.netloc.rpartition("@")
        user = credentials.partition(":")[0]
        # Options can be secrets too (`?password=`), and say little.
        return f"{parts.scheme}://{f'{user}:***' if at else ''}{at}{host}{parts.path}"

    def __repr__(self) -> str:
        return f"SecretUrl('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)


@dataclass(frozen=True, slots=True)
class Variable:
    """How one environment variable is read; `read` raises ValueError saying what it expected."""

    name: str
    default: str
    meaning: str
    expected: str
    read: Callable[[str], Any]
    secret: bool = False
    """Whether even a wrong value must not be shown."""


def _setting(
    name: str, default: object, meaning: str, kind: tuple[str, Callable[[str], Any]], *, secret: bool = False
) -> Any:
    """Declare a field; its default goes the same way as a value from the environment."""
    expected, read = kind
    variable = Variable(name, str(default), meaning, expected, read, secret)
    return field(default=read(variable.default), metadata={"variable": variable})


def _whole(low: int, high: int) -> tuple[str, Callable[[str], Any]]:
    expected = f"a whole number from {low} to {high}"

    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(expected)
        return int(text)

    return expected, read


def _one_of(*choices: str) -> tuple[str, Callable[[str], Any]]:
    expected = "one of " + ", ".join(choices)

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(expected)
        return text

    return expected, read


def _matching(pattern: str, expected: str) -> tuple[str, Callable[[str], Any]]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(expected)
        return text

    return expected, read


def _addresses() -> tuple[str, Callable[[str], Any]]:
    expected = "host:port, or several with commas between"

    def read(text: str) -> str:
        parts = [part.strip() for part in text.split(",")]
        for part in parts:
            match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", part)
            if match is None or not 1 <= int(match[1]) <= 65_535:
                raise ValueError(expected)
        return ",".join(parts)

    return expected, read


def _redis_url() -> tuple[str, Callable[[str], Any]]:
    expected = "redis://[user:password@]host[:port][/database], rediss:// with TLS, or unix://path"
    user = r"(?:[^@/\s?#]*@)?"
    server = rf"rediss?://{user}(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{{1,5}}))?(?:/[0-9]*)?"

    def read(text: str) -> SecretUrl:
        match = re.fullmatch(rf"(?:{server}|unix://{user}/[^\s?#]+)(?:\?[^\s#]*)?", text)
        if match is None or not 1 <= int(match[1] or 1) <= 65_535:
            raise ValueError(expected)
        return SecretUrl(text)

    return expected, read


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker, a command or the demo is told from outside; immutable once read."""

    kafka: str = _setting(
        "SHOAL_KAFKA", "127.0.0.1:9092", "Bootstrap addresses of the Kafka cluster.", _addresses()
    )
    prefix: str = _setting(
        "SHOAL_PREFIX",
        "shoal",
        "What every topic, consumer group and transactional id begins with.",
        _matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "1 to 100 of A-Z a-z 0-9 . _ - and no mark in front"),
    )
    clock: str = _setting(
        "SHOAL_CLOCK",
        "wall",
        "What time it is: `wall` for live traffic, `event` for replays, where Ticks in the log say it.",
        _one_of("wall", "event"),
    )
    definitions: Path = _setting(
        "SHOAL_DEFINITIONS",
        "segments.yaml",
        "The file the very first worker begins with; then what was applied counts.",
        ("a path", Path),
    )
    partitions: int = _setting(
        "SHOAL_PARTITIONS",
        8,
        "Partitions of the topics keyed by customer; fixed once they exist.",
        _whole(1, 1024),
    )
    replication: int = _setting(
        "SHOAL_REPLICATION",
        1,
        "Copies of every partition; 3 in production, of which all but one must confirm a write.",
        _whole(1, 9),
    )
    chunk_records_max: int = _setting(
        "SHOAL_CHUNK_RECORDS_MAX", 5000, "Records of one partition handled together.", _whole(1, 5000)
    )
    transaction_rows_max: int = _setting(
        "SHOAL_TRANSACTION_ROWS_MAX", 5000, "Customers' rows in one transaction.", _whole(1, 50_000)
    )
    transaction_bytes_max: int = _setting(
        "SHOAL_TRANSACTION_BYTES_MAX",
        8 << 20,
        "Bytes of rows in one transaction.",
        _whole(1 << 16, 64 << 20),
    )
    kafka_wait_s_max: int = _setting(
        "SHOAL_KAFKA_WAIT_S_MAX", 30, "Seconds to wait for Kafka at start-up.", _whole(1, 3600)
    )
    events_retention_ms: int = _setting(
        "SHOAL_EVENTS_RETENTION_MS",
        400 * DAY_MS,
        "How long `events` keeps a record, -1 for ever; at least the longest window and 14 days.",
        _whole(-1, 100_000 * DAY_MS),
    )
    session_timeout_ms: int = _setting(
        "SHOAL_SESSION_TIMEOUT_MS",
        15_000,
        "Silence after which another worker takes over this one's partitions.",
        _whole(1000, 300_000),
    )
    worker_id: str = _setting(
        "SHOAL_WORKER_ID",
        "",
        "This worker's own name: restarted within the session timeout, it gets its partitions back.",
        _matching(r"[A-Za-z0-9._-]{0,100}", "at most 100 of A-Z a-z 0-9 . _ -"),
    )
    web_host: str = _setting(
        "SHOAL_WEB_HOST",
        "127.0.0.1",
        "The address a worker answers HTTP at; without a password, so for networks you trust.",
        _matching(r"[0-9A-Za-z.:_-]{1,253}", "a host name or address"),
    )
    web_port: int = _setting(
        "SHOAL_WEB_PORT",
        0,
        "Its port; 0 takes a free one, which the log names.",
        _whole(0, 65_535),
    )
    web_url: str = _setting(
        "SHOAL_WEB_URL",
        "",
        "Where the other workers reach it, if not at that host and port.",
        _matching(r"(https?://[^\s/?#]+/?)?", "http:// or https://, a host and a port, or nothing"),
    )
    redis_url: SecretUrl = _setting(
        "SHOAL_REDIS_URL",
        "redis://127.0.0.1:6379/0",
        "The Redis `shoal sink redis` keeps; never shown with its password.",
        _redis_url(),
        secret=True,
    )
    sink_batch_changes_max: int = _setting(
        "SHOAL_SINK_BATCH_CHANGES_MAX",
        500,
        "Changes handed to a sink together; Redis serves nobody else meanwhile.",
        _whole(1, 5000),
    )
    sink_timeout_ms: int = _setting(
        "SHOAL_SINK_TIMEOUT_MS",
        5000,
        "How long a sink may take to answer before it is asked again.",
        _whole(100, 60_000),
    )
    log_level: str = _setting(
        "SHOAL_LOG_LEVEL",
        "INFO",
        "The least important messages shown.",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read all variables; an empty one counts as not set.

        Raises SettingsError with every problem at once: values out of bounds, and SHOAL_ names
        nobody reads, with the name probably meant.
        """
        problems: list[str] = []
        values: dict[str, Any] = {}
        for each in fields(cls):
            variable: Variable = each.metadata["variable"]
            text = env.get(variable.name, "").strip()
            if not text:
                continue
            try:
                values[each.name] = variable.read(text)
            except ValueError:
                got = "something else" if variable.secret else repr(text)
                problems.append(f"{variable.name}: expected {variable.expected}, got {got}")
        problems += _unknown(env)
        if problems:
            raise SettingsError(problems)
        return cls(**values)


VARIABLES: tuple[Variable, ...] = tuple(each.metadata["variable"] for each in fields(Settings))
"""Every variable in the order of the fields: what README.md and .env.example must agree with."""


def _unknown(env: Mapping[str, str]) -> list[str]:
    known = [variable.name for variable in VARIABLES]
    problems = []
    for name in sorted(env):
        if not name.startswith("SHOAL_") or name in known or name.startswith(OTHERS):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return problems
