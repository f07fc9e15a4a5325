"""The benchmark of drift runs on a few drawn days and writes what its readers expect."""

import json
from pathlib import Path

from bench.drift import __main__ as bench


def test_a_tiny_run_judges_days_as_evidently_does_and_finds_a_moved_mean(
    tmp_path: Path,
) -> None:
    output = tmp_path / "drift.json"
    tiny = [
        "--only-drawn",
        "--windows",
        "8",
        "--evidently",
        "1",
        "--triples",
        "2",
        "--output",
        str(output),
    ]

    status = bench.main(tiny)

    (found,) = json.loads(output.read_text())
    assert (status == 0) is found["met"]
    assert ("drawn", 8, 1) == tuple(
        found[name] for name in ("source", "windows", "evidently_windows")
    )
    assert found["same_through_evidently"]
    moved = [one for one in found["planted"] if one["shift"].startswith("mean")]
    assert {(1.0, 1.0)} == {(one["found_within_three"], one["named"]) for one in moved}
