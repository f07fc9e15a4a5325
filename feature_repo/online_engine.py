"""The step of Feast's materialization that moves rows: from our offline store to our online store.

Feast's own engine takes each batch through pandas and numpy, where an integer column with a null
becomes floats and a large integer another one, and it materializes rows that were not known yet.
This one stays in Arrow: the newest row of each key by (event, creation) time among those with event
and creation time up to the end, written by `feature_repo.online_writer`.

Views that no packed string holds go through Feast's engine. It refuses transformations: features
are computed by the use case's functions before they are written offline.
"""

from typing import Any, Literal

import polars as pl
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import (
    LocalComputeEngine,
    LocalComputeEngineConfig,
)
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

from feature_repo import layout
from feature_repo.translation import join_view


class PackedComputeEngineConfig(LocalComputeEngineConfig):  # type: ignore[misc]  # no types
    """Settings of the engine, as in `feature_store.yaml`; it has none."""

    type: Literal["feature_repo.online_engine.PackedComputeEngine"] = (
        "feature_repo.online_engine.PackedComputeEngine"
    )


class PackedComputeEngine(LocalComputeEngine):  # type: ignore[misc]  # no types
    """Feast's local engine with another way to materialize; see the module.

    Attributes:
        written: Feature view → entities that the last materialization changed.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.written: dict[str, int] = {}

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **options: Any
    ) -> LocalMaterializationJob:
        view = task.feature_view
        if not layout.placements(view):
            return super()._materialize_one(registry, task, **options)
        job = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            rows = self._newest(task)
            writer = self.online_store.writer(self.repo_config)
            self.written[view.name] = writer.write(view, rows)
        except Exception as error:  # noqa: BLE001  # Feast takes it from the job and raises it
            return LocalMaterializationJob(job, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(job, MaterializationJobStatus.SUCCEEDED)

    def _newest(self, task: MaterializationTask) -> pl.DataFrame:
        view, source = task.feature_view, task.feature_view.batch_source
        history = join_view(view, None, full_names=False, known_only=True)
        table = self.offline_store.pull_all_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=list(history.keys.values()),
            feature_name_columns=list(history.features),
            timestamp_field=history.event,
            created_timestamp_column=history.created,
            start_date=task.start_time,
            end_date=task.end_time,
        ).to_arrow()
        rows = pl.DataFrame(table)
        if history.created:
            rows = rows.filter(pl.col(history.created) <= task.end_time)
        times = [name for name in (history.event, history.created) if name]
        newest = rows.sort(times, maintain_order=True).unique(
            list(history.keys.values()), keep="last", maintain_order=True
        )
        return newest.rename(
            {old: new for old, new in source.field_mapping.items() if old in newest.columns}
        )
