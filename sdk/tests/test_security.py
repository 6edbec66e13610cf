"""Brokers that do not talk to everybody: TLS, client certificates, PLAIN and SCRAM, on a real Kafka."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from deploy.local.kafka import HOST, LocalKafka, free_port
from shoal_sdk import Money, Security, Shoal

USERNAME, PASSWORD = "shop", "tell-nobody"


def openssl(*arguments: str, folder: Path) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem), certificates and keys of a broker and a client, and a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "stranger"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}"),
            *("-keyout", f"{authority}.key", "-out", f"{authority}.pem"),
            folder=folder,
        )
    for name in ("broker", "client"):
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-addext", f"subjectAltName=IP:{HOST}"),
            folder=folder,
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
            *("-CAcreateserial", "-copy_extensions", "copy", "-out", f"{name}.pem"),
            folder=folder,
        )
    openssl(
        *("rsa", "-aes256", "-passout", f"pass:{PASSWORD}", "-in", "client.key", "-out", "locked.key"),
        folder=folder,
    )
    (folder / "store.pem").write_text(
        (folder / "broker.key").read_text() + (folder / "broker.pem").read_text()
    )
    return folder


@dataclass(frozen=True)
class Guarded:
    """A broker's addresses: for everybody, by password alone, by password within TLS, by certificate."""

    open: str
    password: str
    both: str
    certificate: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Guarded]:
    """A broker of our own that asks who is there."""
    ports = [free_port() for _ in range(3)]
    names = {"PASSWORD": "SASL_PLAINTEXT", "BOTH": "SASL_SSL", "CERTIFICATE": "SSL"}
    addresses = ",".join(f"{name}://{HOST}:{port}" for name, port in zip(names, ports, strict=True))
    login = "org.apache.kafka.common.security"
    properties = {
        "listeners": addresses,
        "advertised.listeners": addresses,
        "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in names.items()),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "store.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ca.pem"),
        "listener.name.certificate.ssl.client.auth": "required",
    }
    for name in ("password", "both"):
        prefix = f"listener.name.{name}"
        properties[f"{prefix}.plain.sasl.jaas.config"] = (
            f'{login}.plain.PlainLoginModule required user_{USERNAME}="{PASSWORD}";'
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            properties[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{login}.scram.ScramLoginModule required;"
    users = [
        part
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for part in ("--add-scram", f"{mechanism}=[name={USERNAME},password={PASSWORD}]")
    ]
    folder = tmp_path_factory.mktemp("guarded")
    with LocalKafka(folder, properties=properties, format_arguments=users) as kafka:
        yield Guarded(kafka.bootstrap, *(f"{HOST}:{port}" for port in ports))


PASSWORDS: dict[str, Any] = {"username": USERNAME, "password": PASSWORD}


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("way", "arguments"),
    [
        ("password", {"mechanism": "PLAIN", **PASSWORDS}),
        ("password", {"mechanism": "SCRAM-SHA-256", **PASSWORDS}),
        ("password", {"mechanism": "SCRAM-SHA-512", **PASSWORDS}),
        ("both", {"mechanism": "SCRAM-SHA-512", "ca": "ca.pem", **PASSWORDS}),
        ("certificate", {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}),
        (
            "certificate",
            {"ca": "ca.pem", "certificate": "client.pem", "key": "locked.key", "key_password": PASSWORD},
        ),
    ],
)
def test_events_arrive_where_not_everybody_is_let_in(
    guarded: Guarded,
    certificates: Path,
    make_topic: Callable[..., str],
    read_all: Callable[[str, str], list[ConsumerRecord]],
    way: str,
    arguments: dict[str, Any],
) -> None:
    """By every mechanism, with and without TLS, and by certificate."""
    prefix = make_topic(guarded.open)
    security = Security(**with_paths(arguments, certificates))
    with Shoal(getattr(guarded, way), app="shop", prefix=prefix, security=security) as client:
        assert client.purchased("c1", order_id="1", amount=Money(1, "EUR")).wait(30)
    assert len(read_all(guarded.open, prefix)) == 1


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("way", "arguments", "says"),
    [
        ("password", {"mechanism": "PLAIN", "username": USERNAME, "password": "wrong-one"}, "Authentic"),
        ("both", {"mechanism": "PLAIN", "ca": "stranger.pem", **PASSWORDS}, "CERTIFICATE_VERIFY_FAILED"),
        ("both", {"mechanism": "PLAIN", "tls": True, **PASSWORDS}, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    guarded: Guarded,
    certificates: Path,
    caplog: pytest.LogCaptureFixture,
    way: str,
    arguments: dict[str, Any],
    says: str,
) -> None:
    """A wrong password and an authority we do not know; neither shows a secret."""
    security = Security(**with_paths(arguments, certificates))
    client = Shoal(getattr(guarded, way), app="shop", security=security)
    client.purchased("c1", order_id="1", amount=Money(1, "EUR"))
    warnings: list[str] = []
    for _ in range(2000):
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        if warnings or client.flush(0.01) == 0:
            break
    assert client.close(0.0) == 1
    assert len(warnings) == 1
    assert says in warnings[0]
    assert PASSWORD not in caplog.text and "wrong-one" not in caplog.text


def with_paths(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return arguments with the files where they are."""
    return {name: folder / value if "." in str(value) else value for name, value in arguments.items()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "neither TLS nor a mechanism"),
        ({"username": "u"}, "security.username: needs mechanism=, one of PLAIN, SCRAM-SHA-256"),
        ({"password": "hunter2"}, "security.password: needs mechanism="),
        ({"mechanism": "GSSAPI"}, "security.mechanism='GSSAPI': expected one of PLAIN"),
        ({"mechanism": "PLAIN", "password": "hunter2"}, "security.username: PLAIN needs it"),
        ({"mechanism": "PLAIN", "username": "u", "password": ""}, "security.password: PLAIN needs it"),
        ({"key": "a.key"}, "security.key: a key without its certificate"),
        ({"tls": True, "key_password": "hunter2"}, "security.key_password: nothing to open"),
        ({"ca": "/nowhere.pem"}, "security.ca='/nowhere.pem': no readable PEM file"),
        ({"certificate": "/nowhere.pem"}, "certificate='/nowhere.pem'.*: no certificate with its key"),
    ],
)
def test_what_does_not_fit_together_is_a_wrong_argument(arguments: dict[str, Any], says: str) -> None:
    """Said when the client is set up, and never with a secret."""
    with pytest.raises(ValueError, match=says) as raised:
        Security(**arguments)
    assert "hunter2" not in str(raised.value)


def test_no_secret_is_shown() -> None:
    """Neither by the settings nor by a client that has them."""
    security = Security(tls=True, mechanism="PLAIN", username="shop", password="hunter2")
    assert repr(security) == "Security(tls=True, mechanism='PLAIN', username='shop', password='***')"
    with Shoal("127.0.0.1:9", app="shop", security=security, disabled=True) as client:
        assert "hunter2" not in repr(client)
        assert "hunter2" not in repr(vars(client)) and "hunter2" not in str(security)


def test_a_key_with_a_password_does_not_ask_at_the_terminal(certificates: Path) -> None:
    """A worker has none, and would hang."""
    with pytest.raises(ValueError, match="no certificate with its key"):
        Security(certificate=certificates / "client.pem", key=certificates / "locked.key")
