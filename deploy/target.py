"""Which cluster a command means. Without being told: the one of `make cluster`, never another.

A kubeconfig often points at production, because that is where its owner worked last. So the
current context is not taken unless somebody says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mlplatform.errors import SettingsError

KIND_CONTEXT: Final = "kind-mlplatform"
"""The context that kind writes for the cluster of `make cluster`."""
CURRENT: Final = "current"
"""What a person gives as the context to mean the one that kubectl uses now."""
RELEASE: Final = "mlplatform"
"""Of Helm. Names of objects do not derive from it: there is one platform in a namespace."""

Profile = Literal["minimal", "full", "gpu"]


@dataclass(frozen=True)
class Target:
    """Where a command works."""

    context: str
    """Of kubeconfig."""
    namespace: str = "mlplatform"

    @property
    def is_kind(self) -> bool:
        """Whether it is the cluster of `make cluster`."""
        return self.context == KIND_CONTEXT


def choose(wanted: str, known: Sequence[str], current: str) -> str:
    """Return the context that is meant.

    Args:
        wanted: What the person said: a name, `current`, or nothing.
        known: Contexts of kubeconfig.
        current: The one that kubectl uses now; empty: none.

    Raises:
        SettingsError: Nothing was said and there is no cluster of `make cluster`, or there is no
            such context.
    """
    if wanted == CURRENT and current:
        return current
    if wanted and wanted in known:
        return wanted
    names = ", ".join(known) or "none"
    if wanted:
        raise SettingsError(
            f"kubeconfig has no context {wanted!r}, it has: {names}; name one of them with CONTEXT="
        )
    if KIND_CONTEXT in known:
        return KIND_CONTEXT
    others = (
        f"the contexts that it has ({names}) are taken only when you name one: CONTEXT=name, or "
        f"CONTEXT=current for {current or 'the current one'}"
        if known
        else "set KUBECONFIG for another cluster"
    )
    raise SettingsError(
        f"kubeconfig has no context {KIND_CONTEXT}: make the cluster with `make cluster`; {others}"
    )
