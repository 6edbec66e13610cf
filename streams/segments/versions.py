"""The versions of a definition: as records of the `definitions` topic, and compiled for whoever evaluates.

A version is a number and a hash. Its number is given when it is applied, in one order for everybody;
rolling back is a new version with the content of an old one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from errors import DefinitionBehind, DefinitionError, DefinitionMismatch
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load

FORMAT_VERSION = 1
COMMENT_CHARACTERS_MAX = 500
BY_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Version:
    """One applied version: the file's own text, and who applied it when and why."""

    number: int
    yaml: str
    hash: str
    """What the text meant to whoever applied it; a reader to whom it means something else must not run it."""
    applied_at_ms: int
    by: str
    comment: str = ""
    restores: int | None = None
    """The version this one rolls back to."""
    epoch: int = 1
    """Whose changelog it is computed in: one more than before where it is a rebuild's."""

    @property
    def key(self) -> bytes:
        """The record's key."""
        return str(self.number).encode()

    def encode(self, state: str = "applied") -> bytes:
        """Return the record's value: readable JSON with the version of its format."""
        content = {"format": FORMAT_VERSION, "state": state, **asdict(self)}
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> Version:
        """Read what `encode` wrote; DefinitionError for anything else."""
        try:
            content = json.loads(encoded)
            if content["format"] != FORMAT_VERSION:
                raise ValueError(f"format {content['format']!r}, expected {FORMAT_VERSION}")
            return cls(
                int(content["number"]),
                str(content["yaml"]),
                str(content["hash"]),
                int(content["applied_at_ms"]),
                str(content["by"]),
                str(content["comment"]),
                content["restores"],
                int(content.get("epoch", 1)),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DefinitionError([f"definitions: a record cannot be read: {error!r}"]) from error

    def definition(self) -> Definition:
        """Return what the text says under this number.

        Raises DefinitionError when it cannot be read, DefinitionMismatch when it means something else
        to this program than to the one that applied it.
        """
        definition = load(self.yaml, f"version {self.number}").numbered(self.number)
        if definition.hash != self.hash:
            raise DefinitionMismatch(
                f"definition {self.number} was applied as {self.hash[:12]}, and reads as"
                f" {definition.hash[:12]} here: another release of Shoal applied it; apply it anew"
            )
        return definition


@dataclass(frozen=True, slots=True)
class Claim:
    """A rebuild: the version it is to become, whose number and epoch nobody else gets."""

    version: Version
    """`applied_at_ms` is when it was begun, until it is published."""
    state: Literal["running", "published", "abandoned"] = "running"

    def encode(self) -> bytes:
        """Return the record's value, as that of a version with another state."""
        return self.version.encode(self.state)

    @classmethod
    def decode(cls, encoded: bytes) -> Claim:
        """Read what `encode` wrote; DefinitionError for anything else."""
        version = Version.decode(encoded)
        state = json.loads(encoded)["state"]
        if state not in ("running", "published", "abandoned"):
            raise DefinitionError([f"definitions: a rebuild is {state!r}, which this release does not know"])
        return cls(version, state)


class Versions:
    """Every version known to a process, compiled when first asked for; never empty, and only growing."""

    def __init__(self, versions: Iterable[Version] = (), *, only: Evaluator | None = None) -> None:
        """Hold `versions`, or the `only` definition of a pipeline without a topic of them."""
        self._records: dict[int, Version] = {}
        self._compiled: dict[int, Evaluator] = {}
        self._edited: dict[tuple[int, int], frozenset[str]] = {}
        self.resend_run_id: str | None = None
        """The latest request to send all members again."""
        if only is not None:
            self._compiled[only.definition.version] = only
        for version in versions:
            self.add(version)
        if not self._records and not self._compiled:
            raise ValueError("versions=(): expected at least one")

    def add(self, version: Version, compiled: Evaluator | None = None) -> None:
        """Take a version that was read, `compiled` or not; one that is known already changes nothing."""
        if version.number in self._records:
            return
        self._records[version.number] = version
        if compiled is not None:
            self._compiled[version.number] = compiled

    def join(self, others: Versions) -> None:
        """Take in all that others know, as they have compiled it."""
        self._records = {**others._records, **self._records}
        self._compiled = {**others._compiled, **self._compiled}

    @property
    def newest_number(self) -> int:
        """The version everybody is to use."""
        return max(self._numbers)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs versions were applied in, ascending; everybody is to use the last."""
        return tuple(sorted({version.epoch for version in self._records.values()})) or (1,)

    def newest_of(self, epoch: int) -> int:
        """Return the version everybody in an epoch is to use; that of all where none is known of it."""
        numbers = [number for number, version in self._records.items() if version.epoch == epoch]
        return max(numbers, default=self.newest_number)

    def applied_at_ms(self, number: int) -> int:
        """Return when a version was applied, by the clock of whoever did; 0 for one that never was."""
        return self._records[number].applied_at_ms if number in self._records else 0

    def evaluator(self, number: int) -> Evaluator:
        """Return a version that is known, compiled. Raises as `Version.definition`."""
        if number not in self._compiled:
            self._compiled[number] = Evaluator(self._records[number].definition())
        return self._compiled[number]

    @property
    def newest(self) -> Evaluator:
        """The version everybody is to use, compiled. Raises as `Version.definition`."""
        return self.evaluator(self.newest_number)

    def of_state(self, number: int, hash_: str, where: str) -> Evaluator:
        """Return the definition some state was built by; `where` begins the messages.

        Raises DefinitionBehind for a version not read yet, DefinitionMismatch for another content.
        """
        if number > self.newest_number:
            raise DefinitionBehind(
                f"{where}: built by definition {number}, this worker knows up to {self.newest_number}"
            )
        if number not in self._records and number not in self._compiled:
            raise DefinitionMismatch(
                f"{where}: built by definition {number}, which is not on the definitions topic"
            )
        evaluator = self.evaluator(number)
        if evaluator.definition.hash != hash_:
            raise DefinitionMismatch(
                f"{where}: built by definition {number} ({hash_[:12]}), this worker holds {number}"
                f" ({evaluator.definition.hash[:12]}); use the prefix and topics this state belongs to"
            )
        return evaluator

    def edited(self, since: int, until: int) -> frozenset[str]:
        """Return the dimensions that are not declared the same in all versions from one to another.

        Those of a version that cannot be read any more all count as edited.
        """
        if (since, until) not in self._edited:
            numbers = {since, until} | {n for n in self._numbers if since < n < until}
            texts = [self._declared(number) for number in sorted(numbers)]
            names = frozenset().union(*texts)
            self._edited[since, until] = frozenset(
                name for name in names if any(text.get(name) != texts[-1].get(name) for text in texts)
            )
        return self._edited[since, until]

    def _declared(self, number: int) -> dict[str, Any]:
        try:
            if number in self._compiled:
                return self._compiled[number].definition.declared
            return self._records[number].definition().declared
        except (DefinitionError, DefinitionMismatch, KeyError):
            return {}

    @property
    def _numbers(self) -> set[int]:
        return self._records.keys() | self._compiled.keys()

    def records(self) -> list[Version]:
        """Return what was read from the topic, oldest first."""
        return [self._records[number] for number in sorted(self._records)]
