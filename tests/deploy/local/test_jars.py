from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from deploy.local import jars
from errors import LocalKafkaFailed


def sums_of(**contents: bytes) -> dict[str, str]:
    return {f"{name}.jar": hashlib.sha256(content).hexdigest() for name, content in contents.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "a.jar").write_bytes(b"one")
    (tmp_path / "b.jar").write_bytes(b"two")
    return tmp_path


def test_the_committed_lock_has_a_sum_for_every_jar() -> None:
    """Nothing is taken on trust, the broker itself included."""
    sums = jars.locked_sums()
    assert len(sums) == 46
    assert "kafka_2.13-4.3.0.jar" in sums


def test_a_lock_without_a_sum_is_refused(tmp_path: Path) -> None:
    """A jar nobody can check is not run."""
    lock = tmp_path / "jgo.lock.toml"
    lock.write_text('[[dependencies]]\nartifactId = "x"\nversion = "1"\n')
    with pytest.raises(LocalKafkaFailed, match="no SHA-256 for x-1.jar"):
        jars.locked_sums(lock)


def test_jars_with_the_right_sums_are_accepted(folder: Path) -> None:
    """Where below the folder a jar lies does not matter."""
    assert jars.problems_with(folder, sums_of(a=b"one", b=b"two")) == []


def test_a_changed_jar_is_named(folder: Path) -> None:
    """One byte is enough, and both sums are shown."""
    actual, locked = sums_of(b=b"two")["b.jar"], sums_of(b=b"twO")["b.jar"]
    assert jars.problems_with(folder, sums_of(a=b"one", b=b"twO")) == [
        f"b.jar has SHA-256 {actual}, the lock says {locked}"
    ]


def test_a_missing_and_an_extra_jar_are_named(folder: Path) -> None:
    """The folder is the lock's set, no less and no more: an extra jar would be on the class path."""
    assert jars.problems_with(folder, sums_of(a=b"one", c=b"x")) == [
        "c.jar is missing",
        "b.jar is not in the lock",
    ]


def test_another_lock_uses_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After an upgrade nothing of the old version is found."""
    env = {"XDG_CACHE_HOME": "/somewhere"}
    before = jars.cache_folder(env)
    (tmp_path / "jgo.lock.toml").write_text("other")
    monkeypatch.setattr(jars, "HERE", tmp_path)
    assert jars.cache_folder(env) != before
    assert before.parent == Path("/somewhere/shoal")


def test_an_empty_cache_is_filled_and_a_spoilt_one_refused(tmp_path: Path) -> None:
    """What the client brings is compared with the lock, and again before every start."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    entries = jars.classpath(env).split(os.pathsep)
    assert {Path(entry).name for entry in entries} == jars.locked_sums().keys()
    assert list(jars.cache_folder(env).parent.iterdir()) == [jars.cache_folder(env)]
    spoilt = Path(entries[0])
    spoilt.unlink()
    spoilt.write_bytes(b"something else")
    with pytest.raises(LocalKafkaFailed, match=rf"{spoilt.name} has SHA-256"):
        jars.classpath(env)


def test_a_fetch_with_other_sums_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A jar that is not the committed one never reaches the cache."""
    right = jars.locked_sums()
    monkeypatch.setattr(jars, "locked_sums", lambda _: {**right, "kafka_2.13-4.3.0.jar": "0" * 64})
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(LocalKafkaFailed, match=r"kafka_2\.13-4\.3\.0\.jar has SHA-256"):
        jars.classpath(env)
    assert list((tmp_path / "shoal").iterdir()) == []


def test_a_failing_client_is_reported_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason (no network, no such artifact) is in the message, not in a log to look for."""
    monkeypatch.setattr(jars, "HERE", tmp_path)
    (tmp_path / "jgo.toml").write_text("not a specification")
    (tmp_path / "jgo.lock.toml").write_text("[[dependencies]]\n")
    monkeypatch.setattr(jars, "locked_sums", lambda _: {})
    with pytest.raises(LocalKafkaFailed, match="fetching Kafka's jars failed:\n.+"):
        jars.classpath({**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
