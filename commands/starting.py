"""How every command begins and ends: settings and files read, problems told, an exit status."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from errors import DefinitionError, SettingsError, ShoalError
from settings import Settings
from streams.segments.definition import Definition
from streams.segments.loading import load_path

EXIT_FAILED = 1
EXIT_WRONG_SETTINGS = 2

File = tuple[Definition, str]
"""A file of definitions: read, and as text."""


def configured(environment: Mapping[str, str]) -> tuple[Settings, File]:
    """Read settings and definition; with anything wrong in either, say all of it and exit."""
    problems: list[str] = []
    settings = Settings()
    try:
        settings = Settings.from_env(environment)
    except SettingsError as error:
        problems += error.problems
    # Where SHOAL_DEFINITIONS is not what is wrong, the file's problems can be told as well.
    path = (
        settings.definitions
        if not problems
        else Settings.from_env(_only_definitions(environment)).definitions
    )
    file = _read(path, "SHOAL_DEFINITIONS", problems)
    if problems or file is None:
        _refuse(problems)
    return settings, file


def configured_with(path: Path) -> tuple[Settings, File]:
    """Read the settings, and the definition in this file, as `configured` does; the worker's own is not."""
    problems: list[str] = []
    settings = Settings()
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        problems += error.problems
    file = _read(path, "FILE", problems)
    if problems or file is None:
        _refuse(problems)
    return settings, file


def settings_alone() -> Settings:
    """Read the settings; with anything wrong, say all of it and exit."""
    try:
        return Settings.from_env(os.environ)
    except SettingsError as error:
        _refuse(error.problems)


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end and return the result; an error of ours is one message and exit status 1."""
    try:
        return asyncio.run(work)
    except ShoalError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(EXIT_FAILED)


def operator() -> str:
    """Return who runs this command, as other people will read it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _read(path: Path, what: str, problems: list[str]) -> File | None:
    try:
        return load_path(path), path.read_text("utf-8")
    except DefinitionError as error:
        problems += error.problems
    except OSError as error:
        problems.append(f"{what}: {path} cannot be read: {error.strerror}")
    return None


def _refuse(problems: tuple[str, ...] | list[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_WRONG_SETTINGS)


def _only_definitions(environment: Mapping[str, str]) -> dict[str, str]:
    name = "SHOAL_DEFINITIONS"
    return {name: environment[name]} if name in environment else {}
