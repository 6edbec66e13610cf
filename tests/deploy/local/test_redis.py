from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.local import redis
from deploy.local.kafka import HOST
from deploy.local.redis import LocalRedis, answers, redis_for
from errors import LocalRedisFailed, SettingsError

ROOT = Path(redis.__file__).parents[2]
GONE_S_MAX = 20.0


def port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/", 1)[0])


def test_a_redis_named_in_the_environment_is_used_and_left_alone() -> None:
    """Nothing is started, so nothing is stopped."""
    with redis_for({"SHOAL_REDIS_URL": "redis://elsewhere:1/2"}) as url:
        assert url == "redis://elsewhere:1/2"


def test_what_is_no_url_is_refused_before_anything_dials_it() -> None:
    """And not shown, for it may hold a password."""
    with (
        pytest.raises(SettingsError, match="SHOAL_REDIS_URL") as caught,
        redis_for({"SHOAL_REDIS_URL": "hunter2"}),
    ):
        pass
    assert "hunter2" not in str(caught.value)


def test_without_one_a_server_is_started_and_ended() -> None:
    """It answers inside and is gone outside, an empty variable counting as none."""
    with redis_for({"SHOAL_REDIS_URL": ""}) as url:
        assert answers(HOST, port(url))
    assert not answers(HOST, port(url))


def test_a_server_started_again_has_its_port_and_nothing_else() -> None:
    """Also after it was frozen: a kill reaches it all the same."""
    with LocalRedis() as server:
        first, pid = server.url, server.pid
        server.freeze()
        assert not answers(HOST, port(first), timeout_s=0.1)
        server.thaw()
        assert answers(HOST, port(first))
        server.freeze()
        server.kill()
        assert server.pid is None
        server.start()
        assert server.url == first and server.pid not in (None, pid)


def test_a_server_does_not_outlive_a_process_that_is_killed() -> None:
    """The kernel closes the pipe, and the watch ends the server, frozen or not."""
    code = (
        "import os, signal; from deploy.local.redis import LocalRedis\n"
        "server = LocalRedis(); server.start(); print(server.url, flush=True); server.freeze()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    deadline_s = time.monotonic() + GONE_S_MAX
    while (there := answers(HOST, port(done.stdout.strip()))) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not there


def test_a_machine_without_a_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel and nothing on the PATH: the message names the setting."""
    monkeypatch.setattr(redis.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(redis.shutil, "which", lambda _: None)
    with pytest.raises(LocalRedisFailed, match="SHOAL_REDIS_URL"):
        redis.server_path()
