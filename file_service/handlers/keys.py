"""What handlers find in the application."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from file_service.service.archives import ArchiveService
from file_service.service.deliveries import DeliveryService
from file_service.service.files import FileService
from file_service.service.imports import ImportService


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What the handlers are told by the settings; times are seconds."""

    chunked: bool = True
    body_idle: float = 60.0
    send_idle: float = 60.0


@dataclass(slots=True)
class State:
    """What changes while the service runs: whether it is to stop, and how many requests it works on."""

    draining: bool = False
    running: int = 0


Checks: TypeAlias = Mapping[str, Callable[[], Awaitable[None]]]

ARCHIVES = web.AppKey("archives", ArchiveService)
DELIVERIES = web.AppKey("deliveries", DeliveryService)
FILES = web.AppKey("files", FileService)
IMPORTS = web.AppKey("imports", ImportService)
RULES = web.AppKey("rules", HttpRules)
STATE = web.AppKey("state", State)
PARTS: web.AppKey[Checks] = web.AppKey("parts", Mapping)  # what readiness asks, by name
