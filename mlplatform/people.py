"""Who gives an order: kept with each decision of a person."""

import getpass

from mlplatform.errors import DataError


def actor(named: str | None = None) -> str:
    """Return who gives an order: who is named, else the user that the process runs as.

    Raises:
        DataError: Nobody is named, and the user has no name: in a container any number may run.
    """
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # OSError: from Python 3.13 on
        raise DataError(
            "this user has no name, and an order is kept with who gave it: say --actor NAME where "
            "the command has it, else set LOGNAME=NAME"
        ) from error
