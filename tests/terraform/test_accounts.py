"""What Terraform and the cluster agree on: Redis's rights, names of Secrets, roles of images."""

import re
from pathlib import Path

from deploy import infra_accounts
from deploy.credentials import RECIPES
from deploy.infra_secrets import VERIFYING


def defaults(root: Path, variable: str) -> set[str]:
    """Return the strings in the default of a variable of the module `data`."""
    text = (root / "terraform" / "modules" / "data" / "variables.tf").read_text()
    block = text.split(f'variable "{variable}"', 1)[1].split("\n}\n", 1)[0]
    return set(re.findall(r'"([a-z-]+)"', block.split("default", 1)[1]))


def test_both_redis_have_one_list_of_rights(root: Path) -> None:
    assert infra_accounts.rendered() == (root / infra_accounts.FILE).read_text()


def test_a_user_of_elasticache_has_no_password_in_its_rights() -> None:
    for rights in infra_accounts.access().values():
        words = rights.split()

        assert words[0] == "on"
        assert "reset" not in words
        assert not [word for word in words if word[0] in "#>"]


def test_each_secret_of_the_platform_has_an_entry(root: Path) -> None:
    expected = {recipe.name for recipe in RECIPES} | {VERIFYING}

    assert expected == defaults(root, "secret_names")


def test_each_image_that_is_mirrored_or_built_has_a_repository(root: Path) -> None:
    built = {path.name.split(".")[0] for path in (root / "images").glob("*.Dockerfile")}

    assert built <= defaults(root, "image_roles")
