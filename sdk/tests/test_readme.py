"""Every block of code in README.md does what the page says, run with clients that record."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

import shoal_sdk
from shoal_sdk import Money
from shoal_sdk.testing import RecordingAsyncShoal, RecordingShoal

PAGE = (Path(__file__).parents[1] / "README.md").read_text()
EUR = Money.of("12.50", "EUR")
START = "(start)"


def blocks() -> dict[str, list[str]]:
    """Return the Python blocks of the page by the heading they stand under."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE):
        heading = START if section.startswith("# ") else section.split("\n", 1)[0]
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            found.setdefault(heading, []).append(code)
    return found


BLOCKS = blocks()
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the blocks under a heading, in which Shoal records; gives their names."""
    monkeypatch.setattr(shoal_sdk, "Shoal", RecordingShoal)
    monkeypatch.setattr(shoal_sdk, "AsyncShoal", RecordingAsyncShoal)

    def execute(heading: str, **given: Any) -> dict[str, Any]:
        names = dict(given)
        for number, code in enumerate(BLOCKS[heading]):
            exec(compile(code, f"README.md, {heading}, block {number + 1}", "exec"), names)
        return names

    return execute


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    """Let `import name` find a module with these names: a framework this project does not install."""
    module = ModuleType(name)
    module.__dict__.update(names)
    monkeypatch.setitem(sys.modules, name, module)


def test_every_block_of_the_page_is_run_here() -> None:
    """A new recipe needs a test."""
    assert list(BLOCKS) == [
        START,
        "Test what you send",
        "Flask",
        "FastAPI",
        "Django",
        "Workers and servers that fork",
        "Serverless",
        "Events that must not be lost: an outbox",
    ]
    languages = re.findall(r"^```(\w*)$", PAGE, re.MULTILINE)
    assert set(languages) == {"python", "sh", ""}


def test_links_within_the_page_lead_to_headings() -> None:
    """As the usual renderers name them: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links and links <= slugs


def test_the_start(run: Run) -> None:
    """Seven events, as they stand there."""
    shoal = run(START)["shoal"]
    assert [event.type for event in shoal.of("customer-1")] == [
        "signed_up",
        "purchased",
        "refunded",
        "profile_updated",
        "plan_changed",
        "ticket_changed",
        "activity",
    ]
    shoal.assert_sent("purchased", order_id="1001", amount=EUR)
    shoal.assert_sent("identify", traits={"plan": "pro", "newsletter": None})


def test_the_test(run: Run, shoal: RecordingShoal) -> None:
    """The test on the page passes, with the fixture it asks for."""
    run("Test what you send", Money=Money)["test_an_order_is_told"](shoal)
    for name in re.findall(r"`(?:shoal\.)?(\w+)\(", PAGE.split("## Test what you send")[1].split("\n## ")[0]):
        assert hasattr(shoal, name) or name == "setattr"


def test_flask(run: Run) -> None:
    """A request to the application on the page is an event."""
    names = run("Flask")
    answer = names["app"].test_client().post("/orders/o1", json={"customer": "c1", "total": "12.50"})
    assert answer.status_code == 201
    names["shoal"].assert_sent("purchased", times=1, customer_id="c1", order_id="o1", amount=EUR)


async def test_fastapi(run: Run) -> None:
    """A request is an event, and the end of the application the end of the client."""
    names = run("FastAPI")
    app, shoal = names["app"], names["shoal"]
    browser = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop")
    async with app.router.lifespan_context(app), browser:
        answer = await browser.post("/orders/o1", params={"customer": "c1", "total": "12.50"})
    assert answer.status_code == 201
    shoal.assert_sent("purchased", times=1, customer_id="c1", order_id="o1", amount=EUR)
    assert not (await shoal.signed_up("c2")).accepted


def test_django(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event is sent when the transaction is committed, and not before."""
    committed: list[Callable[[], object]] = []
    settings = SimpleNamespace()
    configs: dict[str, Any] = {}
    stand_in(monkeypatch, "django")
    stand_in(
        monkeypatch, "django.apps", AppConfig=object, apps=SimpleNamespace(get_app_config=configs.__getitem__)
    )
    stand_in(monkeypatch, "django.conf", settings=settings)
    stand_in(monkeypatch, "django.db", transaction=SimpleNamespace(on_commit=committed.append))
    names = run("Django")
    settings.SHOAL = names["SHOAL"]
    config = configs["orders"] = names["OrdersConfig"]()
    config.ready()
    names["paid"](SimpleNamespace(customer_id=7, pk=1001, total=Decimal("12.50")))
    config.shoal.assert_nothing_sent()
    for call in committed:
        call()
    config.shoal.assert_sent("purchased", times=1, customer_id="7", order_id="1001", amount=EUR)


def test_celery(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a worker process closes its client."""
    connected: list[Callable[..., None]] = []
    stand_in(monkeypatch, "celery")
    signal = SimpleNamespace(connect=connected.append)
    stand_in(monkeypatch, "celery.signals", worker_process_shutdown=signal)
    shoal = run("Workers and servers that fork")["shoal"]
    for call in connected:
        call(sender=None, signal=signal, pid=1, exitcode=0)
    assert connected and not shoal.signed_up("c1").accepted


def test_serverless(run: Run) -> None:
    """The function says whether Kafka has the event."""
    names = run("Serverless")
    order = {"customer": "c1", "order": "o1", "total": "12.50"}
    assert names["handler"](order, None) == {"told": True}
    with names["shoal"].kafka_away():
        assert names["handler"](order, None) == {"told": False}
    names["shoal"].assert_sent("purchased", times=2, customer_id="c1", order_id="o1", amount=EUR)


class TestOutbox:
    """The recipe, with an order in the database."""

    @pytest.fixture
    def names(self, run: Run) -> dict[str, Any]:
        """The functions of the recipe."""
        return run("Events that must not be lost: an outbox")

    @pytest.fixture
    def db(self, names: dict[str, Any]) -> sqlite3.Connection:
        """A database with one order placed and not told yet."""
        db = sqlite3.connect(":memory:")
        db.executescript(names["SCHEMA"])
        names["place_order"](db, "o1", "c1", 1250)
        return db

    def test_what_is_delivered_is_deleted(
        self, names: dict[str, Any], db: sqlite3.Connection, shoal: RecordingShoal
    ) -> None:
        """Once, with the time of the order."""
        (placed_ms,) = db.execute("SELECT occurred_at_ms FROM shoal_outbox").fetchone()
        assert [names["relay"](db, shoal) for _ in range(2)] == [1, 0]
        event = shoal.assert_sent("purchased", times=1, customer_id="c1", order_id="o1", amount=EUR)
        assert round(event.occurred_at.timestamp() * 1000) == placed_ms

    def test_what_kafka_does_not_take_stays(
        self, names: dict[str, Any], db: sqlite3.Connection, shoal: RecordingShoal
    ) -> None:
        """And is sent again under the same id, also by another process."""
        with shoal.kafka_away():
            assert names["relay"](db, shoal) == 0
        another = RecordingShoal()
        assert names["relay"](db, another) == 1
        assert another.events[0] == shoal.events[0]
        assert db.execute("SELECT count(*) FROM shoal_outbox").fetchone() == (0,)

    def test_an_order_that_fails_is_not_told(
        self, names: dict[str, Any], db: sqlite3.Connection, shoal: RecordingShoal
    ) -> None:
        """The order and its event are one transaction."""
        with pytest.raises(sqlite3.IntegrityError):
            names["place_order"](db, "o1", "c2", 99)
        assert names["relay"](db, shoal) == 1
        shoal.assert_not_sent("purchased", customer_id="c2")
