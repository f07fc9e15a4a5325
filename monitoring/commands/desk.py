"""What the commands work with, opened from the settings when it is first needed."""

import sys
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from feature_repo import catalog, layout
from feature_repo.labels import labels_of, with_reviews
from mlplatform.clients.registry import Registry
from mlplatform.contracts import OnlineLayout
from mlplatform.ledger import Ledger
from mlplatform.reviews import ReviewStore
from mlplatform.settings import (
    ArchiveSettings,
    LedgerSettings,
    MonitoringSettings,
    PlatformSettings,
    RegistrySettings,
    SigningSettings,
)
from monitoring import champion
from monitoring.channels import Console, Webhook
from monitoring.monitor import Monitor
from monitoring.outbox import Channel, Outbox
from monitoring.past import history
from monitoring.requests import RequestStore
from monitoring.rounds import Rounds


class Desk:
    """The parts of monitoring for one use case.

    Args:
        usecase: Its name.
        audit: Whether served vectors are audited against a history that is made for it.
    """

    def __init__(self, usecase: str, *, audit: bool = False) -> None:
        self.code = catalog.load(usecase)
        self.spec = self.code.spec
        self.settings = MonitoringSettings.load()
        self._audit = audit

    @cached_property
    def now(self) -> Callable[[], datetime]:
        """What tells the time."""
        return PlatformSettings.load().clock

    @cached_property
    def archive(self) -> Path:
        """The root of the archived prediction log."""
        return Path(ArchiveSettings.load().root)

    @cached_property
    def layout(self) -> OnlineLayout:
        """How the use case's features lie in the online store."""
        return layout.load(self.spec.name)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of decisions."""
        return Ledger(LedgerSettings.load().url)

    @cached_property
    def requests(self) -> RequestStore:
        """The trigger's history."""
        return RequestStore(LedgerSettings.load().url)

    @cached_property
    def reviews(self) -> ReviewStore:
        """The decisions that people look at."""
        return ReviewStore(LedgerSettings.load().url)

    @cached_property
    def outbox(self) -> Outbox:
        """The ways to people."""
        settings = self.settings
        channels: dict[str, Channel] = {"console": Console(sys.stderr)}
        if settings.webhook_url.get_secret_value():
            token = settings.webhook_token
            channels["webhook"] = Webhook(
                settings.webhook_url,
                token if token.get_secret_value() else None,
                timeout_seconds=settings.webhook_timeout_seconds,
            )
        return Outbox(LedgerSettings.load().url, channels)

    @cached_property
    def rounds(self) -> Rounds:
        """What judges windows."""
        return Rounds(
            self.spec,
            self.archive,
            self._monitor(),
            self.requests,
            self.ledger,
            self.reviews,
            self.outbox,
        )

    def _monitor(self) -> Monitor:
        root, name = self.settings.root, self.spec.name
        registry = Registry(RegistrySettings.load())
        key = SigningSettings.load().public_key
        past: Callable[[datetime], Any] | None = None
        if self._audit:
            past = history(name, root / "history" / name)
        return Monitor(
            self.code,
            self.layout,
            self.archive,
            root,
            self._labels(),
            self.ledger,
            lambda version: champion.load(registry, name, version, key, root / "models"),
            past,
            self.settings.pages,
        )

    def _labels(self) -> Callable[[datetime, datetime], pl.DataFrame]:
        source, label = labels_of(self.code), self.spec.label.name

        def known(start: datetime, now: datetime) -> pl.DataFrame:
            # Uncertain decisions were chosen by their score: a metric on them would be biased.
            drawn = [
                item
                for item in self.reviews.labels(self.spec.name, now)
                if item.reason == "sampled"
            ]
            return with_reviews(source(start, now), drawn, label, now)

        return known
