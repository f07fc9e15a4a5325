"""Parts on disk: however rows are cut into files, row groups and pieces, the join is the same."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import parts
from feature_repo.history import FramePiece, View
from feature_repo.pit import join
from mlplatform.errors import DataError

EXAMPLES: Final = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "joins"))
TIME: Final = pl.Datetime("us", "UTC")
VIEW: Final = View("v", {"a": "a", "b": "b"}, {"value": "value", "text": "text"})
START: Final = datetime(2024, 1, 1, tzinfo=UTC)
row = st.tuples(
    st.sampled_from([1, 2, None]), st.sampled_from(["x", "y"]), st.integers(0, 6), st.integers(0, 6)
)


def frame_of(rows: list[tuple[Any, str, int, int]], first: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "a": pl.Series([r[0] for r in rows], dtype=pl.Int64),
            "b": pl.Series([r[1] for r in rows], dtype=pl.String),
            "event_timestamp": pl.Series([START + timedelta(hours=r[2]) for r in rows], dtype=TIME),
            "created_timestamp": pl.Series(
                [START + timedelta(hours=r[3]) for r in rows], dtype=TIME
            ),
            "value": pl.Series(range(first, first + len(rows)), dtype=pl.Int64),
            "text": pl.Series([f"{number:03}" for number in range(first, first + len(rows))]),
        }
    )


def all_labels() -> pl.DataFrame:
    hours = pl.DataFrame(
        {"event_timestamp": pl.Series([START + timedelta(hours=h) for h in range(8)], dtype=TIME)}
    )
    keys = pl.DataFrame({"a": [2, 1, 1, 3, None], "b": ["y", "x", "y", "x", "x"]})
    return hours.join(keys, how="cross")


@pytest.mark.timeout(3600)  # HYPOTHESIS_PROFILE=thorough takes minutes
@EXAMPLES
@given(
    batches=st.lists(st.lists(row, max_size=12), max_size=4),
    group_rows=st.integers(1, 5),
    limit=st.integers(1, 12),
    is_sorted=st.booleans(),
)
def test_the_cut_into_files_groups_and_pieces_does_not_matter(
    batches: list[list[tuple[Any, str, int, int]]], group_rows: int, limit: int, is_sorted: bool
) -> None:
    frames = [frame_of(batch, 100 * number) for number, batch in enumerate(batches)]
    expected = join(all_labels(), [(VIEW, [FramePiece(frame) for frame in frames])])
    with tempfile.TemporaryDirectory() as name:
        place = parts.folder(name, "v")
        if is_sorted:
            for frame in frames:
                parts.append(place, frame.to_arrow(), VIEW)
            for path in Path(name).rglob("*.parquet"):
                written = pq.read_metadata(path).metadata
                table = pq.read_table(path).replace_schema_metadata(written)
                pq.write_table(table, path, row_group_size=group_rows)
        else:
            Path(name, "v").mkdir()
            for number, frame in enumerate(frames):
                path = Path(name, "v", f"part-{number}.parquet")
                pq.write_table(frame.to_arrow(), path, row_group_size=group_rows)
        found = join(all_labels(), [(VIEW, parts.pieces(place, limit))])

    assert expected.rows() == found.rows()


def test_small_parts_are_searched_together_and_large_ones_apart(tmp_path: Path) -> None:
    place = parts.folder(str(tmp_path), "v")
    for number in range(5):
        parts.append(place, frame_of([(1, "x", 1, 1)] * 2, 10 * number).to_arrow(), VIEW)

    assert 1 == len(parts.pieces(place))
    assert 3 == len(parts.pieces(place, limit=4))


def test_a_missing_folder_has_no_pieces(tmp_path: Path) -> None:
    place = parts.folder(str(tmp_path), "nowhere")

    assert [] == parts.pieces(place)
    assert parts.schema(place) is None


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        pytest.param("data", "flights/v", "/repo/data/flights/v", id="relative to the repository"),
        pytest.param("/data/", "flights/v", "/data/flights/v", id="relative to an absolute root"),
        pytest.param("/data", "/elsewhere/v", "/elsewhere/v", id="absolute"),
        pytest.param("file:///data", "flights/v", "/data/flights/v", id="relative to a URI"),
    ],
)
def test_a_path_is_relative_to_the_root(root: str, path: str, expected: str) -> None:
    assert expected == parts.folder(root, path, Path("/repo")).path


def test_a_scheme_that_is_not_understood_is_refused() -> None:
    with pytest.raises(DataError, match="use a local path or s3://bucket/prefix"):
        parts.folder("gopher://hole", "v")


def test_a_part_without_a_declared_key_is_named(tmp_path: Path) -> None:
    frame = frame_of([(1, "x", 1, 1)], 0)
    frame.drop("b").write_parquet(tmp_path / "part-1.parquet")
    pieces = parts.pieces(parts.folder(str(tmp_path), ""))

    with pytest.raises(DataError, match=r"part-1\.parquet lacks \['b'\]"):
        join(all_labels(), [(VIEW, pieces)])


def test_a_file_system_that_is_not_local_gives_the_same(tmp_path: Path) -> None:
    frames = [frame_of([(1, "x", 1, 1), (2, "y", 0, 3)], 0), frame_of([(1, "x", 2, 2)], 100)]
    near = parts.folder(str(tmp_path), "v")
    for frame in frames:
        parts.append(near, frame.to_arrow(), VIEW)
    far = parts.Folder(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "v")
    parts.append(far, frame_of([(1, "y", 2, 2)], 200).to_arrow(), VIEW)

    expected = join(all_labels(), [(VIEW, parts.pieces(near, limit=2))])
    found = join(all_labels(), [(VIEW, parts.pieces(far, limit=2))])

    assert expected.rows() == found.rows()
    assert 200 in found["value"].to_list()


def test_only_row_groups_with_a_matched_row_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    real = pl.LazyFrame.slice

    def noted(self: pl.LazyFrame, offset: int, length: int | None = None) -> pl.LazyFrame:
        if "value" in self.collect_schema():
            read.append((offset, length or 0))
        return real(self, offset, length)

    monkeypatch.setattr(pl.LazyFrame, "slice", noted)
    frame = frame_of([(key, "x", 1, 1) for key in range(6)], 0)
    pq.write_table(frame.to_arrow(), tmp_path / "part-1.parquet", row_group_size=2)
    labels = (
        all_labels()
        .head(5)
        .with_columns(
            pl.lit(START + timedelta(hours=5), dtype=TIME).alias("event_timestamp"), a=pl.lit(4)
        )
    )

    found = join(labels, [(VIEW, parts.pieces(parts.folder(str(tmp_path), "")))])

    assert [None, 4, None, 4, 4] == found["value"].to_list()
    assert [(4, 2)] == [span for span in read if span[1]]
