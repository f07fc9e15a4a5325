"""How a render is written down: the same text, whichever release of Helm made it.

The minimal profile is there as a whole; of the others what differs from the profile before, object
by object. Labels that all objects carry are left out, and alerts, which have a golden file already.
"""

import copy
from pathlib import Path
from typing import Any, Final

import yaml

from tests.helm.chart import CHART, Object, render

BEFORE: Final = {"minimal": None, "full": "minimal", "gpu": "full"}
"""What a profile is compared with."""
_COMMON: Final = (
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)


class _Readable(yaml.SafeDumper):
    """Long texts (templates in ConfigMaps) line by line."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Readable.add_representer(str, _text)
_Readable.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def text(profile: str) -> str:
    """Return a profile's objects by kind and name, and the names of those that are gone."""
    found, before = _objects(profile), BEFORE[profile]
    if before is None:
        return _dumped(list(found.values()))
    earlier = _objects(before)
    changed = [one for name, one in found.items() if earlier.get(name) != one]
    gone = sorted(" ".join(name) for name in earlier.keys() - found.keys())
    return _dumped([{"comparedWith": before, "withoutItsObjects": gone}, *changed])


def alert_rules() -> dict[Path, str]:
    """Return the alert rules that the chart carries, by file: of each use case, of the cluster."""
    from monitoring import alerts

    of_usecases = sorted((CHART / "files" / "rules").glob("*.yaml"))
    found = {path: _of_usecase(path.stem) for path in of_usecases}
    return found | {CHART / "files" / "cluster-rules.yaml": alerts.cluster_text()}


def _of_usecase(name: str) -> str:
    from feature_repo import catalog, layout
    from monitoring import alerts

    views = layout.load(name).views
    ttls = {view.name: view.ttl_seconds for view in views if view.ttl_seconds is not None}
    return alerts.text(catalog.spec(name), ttls)


def _objects(profile: str) -> dict[tuple[str, str], Object]:
    found = {}
    for one in render(profile):
        bare = copy.deepcopy(one)
        _strip(bare)
        if bare["kind"] == "PrometheusRule":
            bare["spec"] = {"groups": [group["name"] for group in bare["spec"]["groups"]]}
        found[bare["kind"], bare["metadata"]["name"]] = bare
    return dict(sorted(found.items()))


def _strip(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _strip(item)
    if isinstance(value, dict):
        metadata = value.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("labels"), dict):
            for label in _COMMON:
                metadata["labels"].pop(label, None)
        for item in value.values():
            _strip(item)


def _dumped(found: list[Object]) -> str:
    return yaml.dump_all(found, Dumper=_Readable, sort_keys=False, width=100)
