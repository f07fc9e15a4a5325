"""A request that is refused: the status, and what the client reads."""

from mlplatform.errors import DataError, shorten

Headers = list[tuple[str, str]]

NOT_JSON = 400
NOT_FOUND = 404
WRONG_METHOD = 405
TOO_SLOW = 408
TOO_LARGE = 413
WRONG_MEDIA = 415
INVALID = 422
OVERLOADED = 429


class RefusedError(DataError):
    """Ends a request with a client error.

    Args:
        status: HTTP status.
        message: What was expected; shown to the client.
        field: Name of the field that is wrong.
        row: Its row in a batch, from 0.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        row: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(shorten(message))
        self.status, self.field, self.row = status, field, row
        self.headers = headers or []
