"""Send tracking events to Shoal from any Python application, without ever getting in its way."""

from shoal_sdk.arguments import Item, TraitValue
from shoal_sdk.client import Drop, Receipt, RefundKind, Shoal
from shoal_sdk.context import Campaign, Context
from shoal_sdk.errors import BufferFull, ClientClosed, ShoalError
from shoal_sdk.money import Money
from shoal_sdk.outbox import Counters

__all__ = [
    "BufferFull",
    "Campaign",
    "ClientClosed",
    "Context",
    "Counters",
    "Drop",
    "Item",
    "Money",
    "Receipt",
    "RefundKind",
    "Shoal",
    "ShoalError",
    "TraitValue",
]
