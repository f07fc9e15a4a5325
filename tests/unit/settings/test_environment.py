"""What the environment may hold, and how anything else is refused."""

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlplatform.errors import SettingsError
from mlplatform.settings import (
    CONCERNS,
    ComputeSettings,
    DataSettings,
    LedgerSettings,
    PipelineSettings,
    PlatformSettings,
    RegistrySettings,
    Settings,
    SigningSettings,
)


def test_variables_set_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_ENVIRONMENT", "prod")
    monkeypatch.setenv("MLPLATFORM_DATA_ROOT", "/srv/data/")
    monkeypatch.setenv("MLPLATFORM_COMPUTE_CPUS", "8")
    monkeypatch.setenv("MLPLATFORM_SIGNING_PUBLIC_KEY", "/keys/public.pem")
    monkeypatch.setenv("MLPLATFORM_PIPELINE_NODE_SELECTOR", '{"pool": "ml"}')

    assert PlatformSettings.load().environment == "prod"
    assert DataSettings.load().root == "/srv/data"
    assert ComputeSettings.load().cpus == 8
    assert SigningSettings.load().public_key == Path("/keys/public.pem")
    assert PipelineSettings.load().node_selector == {"pool": "ml"}


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_COMPUTE_CPUS", "")

    assert ComputeSettings.load().cpus == 2


@pytest.mark.parametrize("concern", CONCERNS, ids=lambda concern: concern.__name__)
def test_settings_are_frozen_and_closed(concern: type[Settings]) -> None:
    settings = concern.load()
    field = next(iter(concern.model_fields))

    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, field, "other")
    with pytest.raises(ValidationError, match="not permitted"):
        concern(unheard_of=1)  # type: ignore[call-arg]  # the refusal is what is tested


@pytest.mark.parametrize(
    ("concern", "variable", "value", "allowed"),
    [
        pytest.param(PlatformSettings, "ENVIRONMENT", "staging", "'local', 'dev' or 'prod'"),
        pytest.param(DataSettings, "DATA_ROOT", "gs://bucket", "must be a folder"),
        pytest.param(DataSettings, "DATA_ROOT", "s3://bucket/prefix", "must be a folder"),
        pytest.param(RegistrySettings, "REGISTRY_TRACKING_URI", "localhost:5000", "https://host"),
        pytest.param(RegistrySettings, "REGISTRY_TIMEOUT_SECONDS", "0", "greater than 0"),
        pytest.param(RegistrySettings, "REGISTRY_TIMEOUT_SECONDS", "nan", "finite number"),
        pytest.param(ComputeSettings, "COMPUTE_CPUS", "two", "a valid integer"),
        pytest.param(ComputeSettings, "COMPUTE_CPUS", "0", "greater than or equal to 1"),
        pytest.param(ComputeSettings, "COMPUTE_CPUS", "2.5", "a valid integer"),
        pytest.param(PipelineSettings, "PIPELINE_NODE_SELECTOR", "pool=ml", "must be JSON"),
        pytest.param(PipelineSettings, "PIPELINE_NODE_SELECTOR", '{"a": 1}', "a valid string"),
        pytest.param(PipelineSettings, "PIPELINE_SIGNING_SECRET", "Key Pair", "match pattern"),
        pytest.param(PipelineSettings, "PIPELINE_GPU_COUNT", "-1", "greater than or equal to 0"),
        pytest.param(PipelineSettings, "PIPELINE_RETRIES", "11", "less than or equal to 10"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
    concern: type[Settings],
    variable: str,
    value: str,
    allowed: str,
) -> None:
    monkeypatch.setenv(f"MLPLATFORM_{variable}", value)

    with pytest.raises(SettingsError) as caught:
        concern.load()

    message = str(caught.value)
    assert message.startswith(f"MLPLATFORM_{variable} is ")
    assert allowed in message
    assert "Its meaning: " in message
    assert value in message or value == '{"a": 1}'


def test_all_malformed_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_PIPELINE_GPU_COUNT", "two")
    monkeypatch.setenv("MLPLATFORM_PIPELINE_RETRIES", "-1")

    with pytest.raises(SettingsError, match=r"(?s)GPU_COUNT is 'two'.*RETRIES is '-1'"):
        PipelineSettings.load()


def test_a_misspelt_variable_is_refused_with_the_right_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLPLATFORM_DATA_ROTO", "/data")

    with pytest.raises(SettingsError, match=r"DATA_ROTO is no setting; did you mean .*DATA_ROOT\?"):
        DataSettings.load()


def test_variables_that_kubernetes_adds_for_services_are_let_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rest in ("SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_5000_TCP_ADDR"):
        for service in ("REGISTRY", "LEDGER", "DATA", "PIPELINE", "COMPUTE"):
            monkeypatch.setenv(f"MLPLATFORM_{service}_{rest}", "1")

    assert len([concern.load() for concern in CONCERNS]) == len(CONCERNS)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_secret_at_its_placeholder_is_refused_outside_local(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("MLPLATFORM_ENVIRONMENT", environment)

    with pytest.raises(SettingsError, match="MLPLATFORM_REGISTRY_PASSWORD is still at the place"):
        RegistrySettings.load()

    monkeypatch.setenv("MLPLATFORM_REGISTRY_PASSWORD", "s3cret")
    assert RegistrySettings.load().password.get_secret_value() == "s3cret"


def test_an_empty_secret_does_not_pass_for_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_ENVIRONMENT", "prod")
    monkeypatch.setenv("MLPLATFORM_REGISTRY_PASSWORD", "")

    with pytest.raises(SettingsError, match="MLPLATFORM_REGISTRY_PASSWORD"):
        RegistrySettings.load()


def test_a_placeholder_inside_a_url_is_refused_outside_local(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "postgresql://ledger:changeme@db/ledger"
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", url)
    assert LedgerSettings.load().url.get_secret_value() == url

    monkeypatch.setenv("MLPLATFORM_ENVIRONMENT", "prod")
    with pytest.raises(SettingsError, match="MLPLATFORM_LEDGER_URL is still at the placeholder"):
        LedgerSettings.load()


def test_a_misspelt_environment_does_not_open_the_door_to_placeholders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLPLATFORM_ENVIRONMNT", "prod")

    with pytest.raises(SettingsError, match="did you mean MLPLATFORM_ENVIRONMENT"):
        RegistrySettings.load()


@pytest.mark.parametrize(
    ("concern", "variable", "value"),
    [
        pytest.param(LedgerSettings, "LEDGER_URL", "mysql://u:hunter2@db/x", id="ledger"),
        pytest.param(RegistrySettings, "REGISTRY_TRACKING_URI", "http://u:hunter2@h", id="address"),
    ],
)
def test_a_refused_value_shows_no_secret_anywhere(
    monkeypatch: pytest.MonkeyPatch, concern: type[Settings], variable: str, value: str
) -> None:
    monkeypatch.setenv(f"MLPLATFORM_{variable}", value)

    with pytest.raises(SettingsError) as caught:
        concern.load()

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_hidden_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_REGISTRY_PASSWORD", "hunter2")
    monkeypatch.setenv("MLPLATFORM_LEDGER_URL", "postgresql://u:hunter2@db/x")
    loaded = (RegistrySettings.load(), LedgerSettings.load())

    shown = f"{loaded!r} {[str(item) for item in loaded]} {[i.model_dump_json() for i in loaded]}"

    assert "hunter2" not in shown
