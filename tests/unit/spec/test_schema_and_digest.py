"""What editors and digests make of a spec, and the commands that check it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
from ruamel.yaml import YAML

from mlplatform import spec
from mlplatform.spec.__main__ import SCHEMA_FILE, main

WriteSpec = Callable[..., Path]
FLIGHT_DELAY = SCHEMA_FILE.parent / "flight_delay" / "usecase.yaml"


def read(path: Path) -> Any:
    """Return a YAML file as plain values."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))

    assert spec.schema() == committed, "run python -m mlplatform.spec schema"


def test_the_schema_is_valid_and_has_no_address() -> None:
    schema = spec.schema()
    jsonschema.Draft202012Validator.check_schema(schema)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema


@pytest.mark.parametrize("path", [pytest.param(FLIGHT_DELAY, id="flight_delay")])
def test_the_reference_use_case_validates_against_the_committed_schema(path: Path) -> None:
    committed = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))

    jsonschema.validate(read(path), committed, jsonschema.Draft202012Validator)

    assert path.parent.name == spec.load(path).name


def test_the_schema_refuses_unknown_keys(write_spec: WriteSpec) -> None:
    path = write_spec(("  owner: wayfinding", "  owner: wayfinding\n  ownr: x"))

    with pytest.raises(jsonschema.ValidationError, match="ownr"):
        jsonschema.validate(read(path), spec.schema(), jsonschema.Draft202012Validator)


def test_layout_and_comments_do_not_change_the_digest(write_spec: WriteSpec) -> None:
    plain = spec.digest(spec.load(write_spec()))
    old = "split: {validation_days: 7, test_days: 7, gap_hours: 20}"
    new = "split:  # newest last\n  test_days: 7\n  gap_hours: 20.0\n  validation_days: 7"
    other = write_spec((old, new))

    assert plain == spec.digest(spec.load(other))
    assert len(plain) == 64


def test_a_value_changes_the_digest(write_spec: WriteSpec) -> None:
    plain = spec.digest(spec.load(write_spec()))
    other = write_spec(("test_days: 7", "test_days: 8"))

    assert plain != spec.digest(spec.load(other))


def test_check_says_which_specs_are_right(
    write_spec: WriteSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_spec()

    assert main(["check", str(path.parent), str(path)]) == 0
    assert [f"{path}: small_case is well specified"] * 2 == [
        line.split(",")[0] for line in capsys.readouterr().out.splitlines()
    ]


def test_check_fails_when_one_of_several_is_wrong(
    write_spec: WriteSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_spec(("peak_qps: 20", "peak_qps: 0"))

    assert main(["check", str(wrong), str(FLIGHT_DELAY)]) == 1
    output = capsys.readouterr()
    assert "serving.peak_qps: value 0: must be greater than 0; raise it" in output.err
    assert "flight_delay is well specified" in output.out


def test_schema_check_fails_until_the_file_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "usecase.schema.json"

    assert main(["schema", "--check", "--path", str(path)]) == 1
    assert "run python -m mlplatform.spec schema" in capsys.readouterr().err
    assert main(["schema", "--path", str(path)]) == 0
    assert main(["schema", "--check", "--path", str(path)]) == 0
    assert spec.schema() == json.loads(path.read_text(encoding="utf-8"))
