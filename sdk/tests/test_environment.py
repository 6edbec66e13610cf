"""The variables that set up a client: read, bounded, complained about all at once, secrets never shown."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import pytest

from shoal_sdk import AsyncShoal, Security, SettingsError, Shoal
from shoal_sdk.environment import VARIABLES
from shoal_sdk.options import Options

README = Path(__file__).resolve().parents[1] / "README.md"
LEAST = {"SHOAL_SDK_BOOTSTRAP": "kafka-1:9092", "SHOAL_SDK_APP": "shop"}


def options_of(env: dict[str, str]) -> Options:
    """Return what a client made from these variables goes by."""
    client = Shoal.from_env({**env, "SHOAL_SDK_DISABLED": "yes"})
    client.close()
    return client._options


def test_every_variable_reaches_the_client(tmp_path: Path) -> None:
    """By the name and the type of its argument."""
    found = options_of(
        {
            "SHOAL_SDK_BOOTSTRAP": "kafka-1:9092, [::1]:9093",
            "SHOAL_SDK_APP": "shop",
            "SHOAL_SDK_PREFIX": "eu",
            "SHOAL_SDK_MAX_EVENTS": "5",
            "SHOAL_SDK_MAX_BYTES": "6000",
            "SHOAL_SDK_LINGER_S": "0.5",
            "SHOAL_SDK_ON_FULL": "wait",
            "SHOAL_SDK_STRICT": "true",
            "SHOAL_SDK_SYNC": "1",
            "SHOAL_SDK_SYNC_TIMEOUT_S": "2",
            "SHOAL_SDK_SPOOL": str(tmp_path),
            "SHOAL_SDK_SPOOL_MAX_BYTES": "2000000",
            "SHOAL_SDK_SPOOL_FSYNC": "no",
            "SHOAL_SDK_TLS": "true",
            "SHOAL_SDK_SASL_MECHANISM": "SCRAM-SHA-512",
            "SHOAL_SDK_SASL_USERNAME": "u",
            "SHOAL_SDK_SASL_PASSWORD": " p ",
        }
    )
    assert found == Options(
        bootstrap=["kafka-1:9092", "[::1]:9093"],
        app="shop",
        prefix="eu",
        security=Security(tls=True, mechanism="SCRAM-SHA-512", username="u", password=" p "),
        max_events=5,
        max_bytes=6000,
        linger_s=0.5,
        spool=str(tmp_path),
        spool_max_bytes=2000000,
        spool_fsync=False,
        sync=True,
        sync_timeout_s=2.0,
        strict=True,
        disabled=True,
        on_full="wait",
    )


def test_what_is_not_set_is_as_without_the_environment() -> None:
    """An empty variable counts as not set; both clients read the same."""
    with Shoal("kafka-1:9092", app="shop", disabled=True) as plain:
        options = options_of({**LEAST, "SHOAL_SDK_SPOOL": "", "SHOAL_SDK_TLS": "false"})
        assert options == Options(**{**fields(plain._options), "bootstrap": ["kafka-1:9092"]})
    assert AsyncShoal.from_env({**LEAST, "SHOAL_SDK_DISABLED": "1"})._options == options


def fields(options: Options) -> dict[str, object]:
    """Return the fields by name."""
    return {name: getattr(options, name) for name in options.__slots__}


def test_all_problems_are_said_at_once_and_no_secret() -> None:
    """Whoever sets up a deployment mends it in one go."""
    env = {
        "SHOAL_SDK_BOOTSTRAP": "kafka-1",
        "SHOAL_SDK_PREFIX": "a/b",
        "SHOAL_SDK_MAX_EVENTS": "many",
        "SHOAL_SDK_MAX_BYTES": "0",
        "SHOAL_SDK_LINGER_S": "nan",
        "SHOAL_SDK_ON_FULL": "block",
        "SHOAL_SDK_STRICT": "maybe",
        "SHOAL_SDK_MAX_EVENT": "5",
        "SHOAL_SDK_TLS_CA": "/nowhere.pem",
        "SHOAL_SDK_SASL_PASSWORD": "hunter2",
        "SHOAL_SDK_TLS_KEY_PASSWORD": "hunter2\nand a second line",
    }
    with pytest.raises(SettingsError) as raised:
        Shoal.from_env(env)
    problems = raised.value.problems
    assert [problem.split(":")[0] for problem in problems] == [
        "SHOAL_SDK_BOOTSTRAP",
        "SHOAL_SDK_PREFIX",
        "SHOAL_SDK_MAX_EVENTS",
        "SHOAL_SDK_MAX_BYTES",
        "SHOAL_SDK_LINGER_S",
        "SHOAL_SDK_ON_FULL",
        "SHOAL_SDK_STRICT",
        "SHOAL_SDK_TLS_KEY_PASSWORD",
        "SHOAL_SDK_APP",
        "SHOAL_SDK_MAX_EVENT",
        "SHOAL_SDK_SASL_PASSWORD",
    ]
    assert problems[0].endswith("expected host:port, or several with commas between, got 'kafka-1'")
    assert problems[9] == "SHOAL_SDK_MAX_EVENT: no such setting; did you mean SHOAL_SDK_MAX_EVENTS?"
    assert problems[10].startswith("SHOAL_SDK_SASL_PASSWORD: needs SHOAL_SDK_SASL_MECHANISM=, one of PLAIN")
    assert str(raised.value) == "\n".join(problems)
    assert "hunter2" not in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_disabled_client_needs_no_kafka() -> None:
    """A developer's machine has none."""
    with Shoal.from_env({"SHOAL_SDK_APP": "shop", "SHOAL_SDK_DISABLED": "true"}) as client:
        assert not client.identify("c1", {}).accepted


def test_the_readme_has_a_row_for_every_variable() -> None:
    """All of them, no other, each beside its argument."""
    rows = re.findall(r"^\| `([a-z_]+)` \| `(SHOAL_SDK_[A-Z_]+)` \|", README.read_text(), re.MULTILINE)
    assert rows == [(variable.argument, variable.name) for variable in VARIABLES]


def test_what_only_the_client_finds_out_is_a_settings_error_too(tmp_path: Path) -> None:
    """Whoever catches one kind of error at the start sees all of them, under the variable's name."""
    tmp_path.joinpath("file").touch()
    with pytest.raises(SettingsError, match="SHOAL_SDK_SPOOL=.*of no use"):
        Shoal.from_env({**LEAST, "SHOAL_SDK_SPOOL": str(tmp_path / "file")})
    with pytest.raises(SettingsError, match="SHOAL_SDK_APP=.*bytes of UTF-8"):
        Shoal.from_env({**LEAST, "SHOAL_SDK_APP": "ä" * 200})


@pytest.mark.parametrize("bootstrap", [123, "nonsense", ["a:1", "b"], "a:0", {"a:1": 2}])
def test_an_address_without_a_port_is_said_at_once(bootstrap: Any) -> None:
    """And not by an outage that never ends."""
    with pytest.raises(ValueError, match="bootstrap=.*expected 'host:port'"):
        Shoal(bootstrap, app="shop", disabled=True)


@pytest.mark.parametrize("name", ["linger_s", "sync_timeout_s", "max_events"])
def test_a_setting_is_finite(name: str) -> None:
    """No thread can wait for ever and a bit."""
    with pytest.raises(ValueError, match=f"{name}=inf"):
        Shoal("a:1", app="shop", disabled=True, **{name: math.inf})


async def test_any_timeout_is_taken() -> None:
    """None, infinite and huge ones are as long as a thread can wait; what is no number waits not at all."""
    with Shoal("127.0.0.1:9", app="shop") as client:
        receipt = client.identify("c1", {})
        assert not receipt.wait(math.nan)
        client._transport._refused(next(iter(client._transport.outbox._held)))
        for timeout in (None, 1e10, math.inf):
            client.flush(timeout)
            assert not receipt.wait(timeout)
    asking = AsyncShoal("127.0.0.1:9", app="shop")
    waits = [asyncio.ensure_future((await asking.identify("c1", {})).wait(each)) for each in (1e10, math.inf)]
    await asyncio.sleep(0)
    await asking.close(0.0)
    assert await asyncio.gather(*waits) == [False, False]
