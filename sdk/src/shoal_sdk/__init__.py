"""Send tracking events to Shoal from any Python application, without ever getting in its way."""

from shoal_sdk.arguments import Item, TraitValue
from shoal_sdk.async_client import AsyncShoal
from shoal_sdk.client import Shoal
from shoal_sdk.context import Campaign, Context
from shoal_sdk.counters import Counters
from shoal_sdk.errors import BufferFull, ClientClosed, SettingsError, ShoalError
from shoal_sdk.events import RefundKind
from shoal_sdk.money import Money
from shoal_sdk.receipts import AsyncReceipt, Drop, Receipt
from shoal_sdk.security import Security

__all__ = [
    "AsyncReceipt",
    "AsyncShoal",
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
    "Security",
    "SettingsError",
    "Shoal",
    "ShoalError",
    "TraitValue",
]
