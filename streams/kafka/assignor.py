"""Faust's assignor, made to take back a named worker that comes again from another address.

Kafka hands a named member that restarts the assignment it had, address included, and asks
nobody else; Faust takes a foreign address for a broken invariant. Until the next rebalance the
others are told the old address of such a worker's customers.
"""

from __future__ import annotations

from typing import Any

from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor


class ReturningAssignor(PartitionAssignor):
    """Accepts an assignment that was made for this member's former address."""

    _given_url: str | None = None

    @property
    def _url(self) -> Any:
        return self._given_url or super()._url

    def on_assignment(self, assignment: Any) -> None:
        """Take the assignment over."""
        self._given_url = ClientMetadata.loads(self._decompress(assignment.user_data)).url
        try:
            super().on_assignment(assignment)
        finally:
            self._given_url = None
