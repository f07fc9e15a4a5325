"""The rights of Redis's users as ElastiCache takes them: `python -m deploy.infra_accounts`.

Written into Terraform's module from the one list that the chart's Redis has too. A test holds both
together.
"""

import json
from pathlib import Path
from typing import Final

from deploy.access_lists import USERS, access_list

FILE: Final = Path("terraform/modules/data/redis_access.json")


def access() -> dict[str, str]:
    """Return the access string of each user: without name and password, which AWS keeps itself."""
    lines = access_list(dict.fromkeys(USERS, "")).splitlines()
    words = [line.split() for line in lines]
    return {
        one[1]: " ".join(word for word in one[2:] if word != "reset" and not word.startswith("#"))
        for one in words
        if one[1] in USERS
    }


def rendered() -> str:
    """Return the file's text."""
    return json.dumps(access(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
