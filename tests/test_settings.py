from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from errors import SettingsError
from settings import VARIABLES, SecretUrl, Settings


def problems(**env: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env)
    return caught.value.problems


def test_an_empty_environment_gives_the_defaults() -> None:
    """Without any variable every field has the default the table declares."""
    assert Settings.from_env({}) == Settings()
    assert Settings().definitions == Path("segments.yaml")


def test_an_empty_variable_counts_as_not_set() -> None:
    """`SHOAL_KAFKA=` in an .env file is how people unset things."""
    assert Settings.from_env({"SHOAL_KAFKA": " "}).kafka == Settings().kafka


def test_every_variable_reaches_its_own_field() -> None:
    """Each value given is the value of the field, in the field's type."""
    read = Settings.from_env(
        {
            "SHOAL_KAFKA": "one:9092, [::1]:9093",
            "SHOAL_PREFIX": "test.x",
            "SHOAL_CLOCK": "event",
            "SHOAL_DEFINITIONS": "/etc/shoal.yaml",
            "SHOAL_PARTITIONS": "4",
            "SHOAL_REPLICATION": "3",
            "SHOAL_CHUNK_RECORDS_MAX": "7",
            "SHOAL_TRANSACTION_ROWS_MAX": "9",
            "SHOAL_TRANSACTION_BYTES_MAX": "100000",
            "SHOAL_KAFKA_WAIT_S_MAX": "2",
            "SHOAL_EVENTS_RETENTION_MS": "-1",
            "SHOAL_SESSION_TIMEOUT_MS": "6000",
            "SHOAL_WORKER_ID": "worker-0",
            "SHOAL_WEB_HOST": "0.0.0.0",
            "SHOAL_WEB_PORT": "8080",
            "SHOAL_WEB_URL": "http://10.0.0.7:8080",
            "SHOAL_REDIS_URL": "rediss://shoal:secret@cache.example:6380/2",
            "SHOAL_SINK_BATCH_CHANGES_MAX": "50",
            "SHOAL_SINK_TIMEOUT_MS": "900",
            "SHOAL_LOG_LEVEL": "DEBUG",
        }
    )
    assert dataclasses.astuple(read) == (
        *("one:9092,[::1]:9093", "test.x", "event", Path("/etc/shoal.yaml"), 4, 3, 7, 9, 100_000, 2, -1),
        *(6000, "worker-0", "0.0.0.0", 8080, "http://10.0.0.7:8080"),
        *(SecretUrl("rediss://shoal:secret@cache.example:6380/2"), 50, 900, "DEBUG"),
    )


def test_all_problems_are_reported_at_once() -> None:
    """A wrong value, a value out of bounds and a misspelt name come in one error."""
    assert problems(SHOAL_PARTITIONS="many", SHOAL_CHUNK_RECORDS_MAX="5001", SHOAL_PREFX="x") == (
        "SHOAL_PARTITIONS: expected a whole number from 1 to 1024, got 'many'",
        "SHOAL_CHUNK_RECORDS_MAX: expected a whole number from 1 to 5000, got '5001'",
        "SHOAL_PREFX: no such setting; did you mean SHOAL_PREFIX?",
    )


@pytest.mark.parametrize("text", ["kafka", "kafka:", "kafka:0", "kafka:65536", "a:1,,b:2", "http://a:1"])
def test_an_address_needs_a_host_and_a_port(text: str) -> None:
    """Whatever is not host:port is refused before anything dials it."""
    assert problems(SHOAL_KAFKA=text) == (
        f"SHOAL_KAFKA: expected host:port, or several with commas between, got {text!r}",
    )


@pytest.mark.parametrize("text", ["5_000", "٣", "1e3", "0x10", "3.0", "--1"])
def test_a_number_is_written_in_plain_digits(text: str) -> None:
    """What only Python takes for a number is refused."""
    assert len(problems(SHOAL_PARTITIONS=text)) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@cache:6379/1", "redis://:***@cache:6379/1"),
        ("rediss://shoal:hunter2@[::1]:6380", "rediss://shoal:***@[::1]:6380"),
        ("redis://cache/0?password=hunter2", "redis://cache/0"),
        ("unix://shoal:hunter2@/run/redis.sock?db=1", "unix://shoal:***@/run/redis.sock"),
        ("redis://cache", "redis://cache"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    """Not by the URL, nor by settings printed, turned into a dictionary or a tuple; but it is kept."""
    read = Settings.from_env({"SHOAL_REDIS_URL": url})
    assert str(read.redis_url) == shown and repr(read.redis_url) == f"SecretUrl('{shown}')"
    assert read.redis_url.reveal() == url
    for text in (repr(read), str(dataclasses.asdict(read)), str(dataclasses.astuple(read))):
        assert "hunter2" not in text


@pytest.mark.parametrize(
    "url",
    [
        *("http://shoal:hunter2@cache", "redis://a:hunter2", "redis://a:hunter2@b:70000", "hunter2"),
        *(
            "redis://a:hunter2#x@cache",
            "redis://a:hunter2?x@cache",
            "unix://a:hunter2#@/x",
            "redis://a:hunter2@/1",
        ),
    ],
)
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    """Where the password is in something that is no URL, nobody can say."""
    (problem,) = problems(SHOAL_REDIS_URL=url)
    assert problem.startswith("SHOAL_REDIS_URL: expected redis://") and "hunter2" not in problem


def test_a_prefix_must_be_legal_in_a_topic_name() -> None:
    """A blank or slash would only fail later, at the broker."""
    assert len(problems(SHOAL_PREFIX="a/b")) == 1
    assert len(problems(SHOAL_PREFIX=".a")) == 1


def test_variables_of_the_other_programs_are_left_alone() -> None:
    """SHOAL_TEST_ and its like are read elsewhere; variables of other software are ignored."""
    assert Settings.from_env({"SHOAL_TEST_X": "1", "SHOALS": "1", "HOME": "/"}) == Settings()


def test_settings_cannot_be_changed_after_reading() -> None:
    """What was reported at start-up is what holds."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().partitions = 3  # type: ignore[misc]  # The mistake is the subject.


def test_every_variable_says_what_it_means() -> None:
    """Nothing in the table is left unexplained."""
    assert all(
        variable.name.startswith("SHOAL_") and variable.meaning.endswith(".") for variable in VARIABLES
    )
