"""The three scores and the rfm dimension, built from the same nodes as any other segment."""

from __future__ import annotations

from dataclasses import dataclass

from streams.segments.choices import FirstMatch, Lookup
from streams.segments.conditions import HasPaid, Not
from streams.segments.definition import Definition
from streams.segments.grid import PROSPECT
from streams.segments.measures import Age, Bands, Count, Net, PaidAt
from streams.segments.view import ORDERS, Window


@dataclass(frozen=True, slots=True)
class Rfm:
    """The nodes of one definition's RFM, shared with whatever else reads them."""

    values: tuple[str, ...]
    paid: HasPaid
    silence: Age
    orders: Count
    net: Net
    recency: Bands
    frequency: Bands
    monetary: Bands
    segment: FirstMatch


def build(definition: Definition) -> Rfm:
    """Build the nodes: R by the age of the last order of all time, F and M over the window."""
    paid, silence = HasPaid(), Age(PaidAt("last"))
    orders, net = Count(Window(ORDERS, definition.window_ms)), Net(definition.window_ms)
    recency = Bands(silence, definition.r_edges_ms, descending=True)
    frequency = Bands(orders, definition.f_edges)
    monetary = Bands(net, definition.m_edges_minor)
    segment = FirstMatch(
        [(Not(paid), 0)], otherwise=Lookup((recency, frequency, monetary), definition.grid.codes())
    )
    values = (PROSPECT, *definition.grid.names)
    return Rfm(values, paid, silence, orders, net, recency, frequency, monetary, segment)
