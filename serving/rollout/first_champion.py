"""The first champion of a use case: the version that takes over when there is none."""

from datetime import UTC, datetime

from mlplatform.clients.registry import Registry
from mlplatform.contracts import Decision, ModelRef
from mlplatform.contracts.rollout import Version
from mlplatform.errors import NotFoundError
from mlplatform.ledger import Ledger


def first_champion(
    registry: Registry, ledger: Ledger, usecase: str, actor: str = "local"
) -> Version:
    """Return the champion; the newest challenger becomes it if there is none.

    The ledger says so: there is nothing that it could be compared with live.

    Args:
        registry: Knows the versions.
        ledger: Is told.
        usecase: Whose name the registered model has.
        actor: Who makes it so.

    Raises:
        NotFoundError: No version is registered.
    """
    champion = registry.by_alias(usecase, "champion")
    if champion is None:
        champion = registry.by_alias(usecase, "challenger")
        if champion is None:
            raise NotFoundError(
                f"no version of {usecase} is registered: run `make demo` and see why its gates "
                "refused the candidates"
            )
        _promote(registry, ledger, champion, actor)
    return Version(version=champion.version, digest=champion.digest)


def _promote(registry: Registry, ledger: Ledger, ref: ModelRef, actor: str) -> None:
    """Promote the first version of all; running it twice adds nothing."""
    decision = Decision(
        key=f"{ref.name}/route/{ref.version}/{ref.signature[:16]}",
        usecase=ref.name,
        kind="route",
        subject=str(ref.version),
        verdict="promoted",
        reason="the first version: no champion to compare it with on live traffic",
        evidence={"digest": ref.digest, "signature": ref.signature},
        actor=actor,
        at=datetime.now(UTC),
    )
    ledger.append(decision)
    registry.set_alias(ref.name, "champion", ref.version)
