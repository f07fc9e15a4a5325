"""Which cluster a command means when nobody says, and when somebody does."""

import pytest

from deploy.target import KIND_CONTEXT, Target, choose
from mlplatform.errors import SettingsError


def test_without_a_word_the_cluster_of_make_cluster_is_meant() -> None:
    assert KIND_CONTEXT == choose("", ["production", KIND_CONTEXT], "production")


def test_the_current_context_is_never_taken_by_accident() -> None:
    with pytest.raises(SettingsError, match="CONTEXT=current for production"):
        choose("", ["production"], "production")


def test_without_any_context_it_says_how_to_make_a_cluster() -> None:
    with pytest.raises(SettingsError, match="`make cluster`; set KUBECONFIG"):
        choose("", [], "")


def test_a_context_can_be_named() -> None:
    assert "staging" == choose("staging", ["production", "staging"], "production")


def test_the_current_context_can_be_meant() -> None:
    assert "production" == choose("current", ["production", KIND_CONTEXT], "production")


def test_a_context_that_is_called_current_is_found_where_none_is_chosen() -> None:
    assert "current" == choose("current", ["current"], "")


def test_a_context_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(SettingsError, match="no context 'stagign', it has: production, staging"):
        choose("stagign", ["production", "staging"], "production")


@pytest.mark.parametrize(("context", "kind"), [(KIND_CONTEXT, True), ("production", False)])
def test_only_kinds_own_context_is_kind(context: str, kind: bool) -> None:
    assert kind == Target(context).is_kind
