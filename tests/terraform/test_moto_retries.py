"""A call whose answer was lost is not done twice."""

from typing import Any

from tests.terraform.moto_retries import Remembering, Start


class Counting:
    """Answers with how often it was asked; the first `failing` times it cannot."""

    def __init__(self, failing: int = 0) -> None:
        self.asked, self.failing = 0, failing

    def __call__(self, environ: dict[str, Any], start: Start) -> list[bytes]:
        del environ
        self.asked += 1
        start("503 Away" if self.asked <= self.failing else "200 OK", [("Content-Type", "text")])
        return [str(self.asked).encode()]


def ask(application: Remembering, call: str = "") -> tuple[str, bytes]:
    said: list[str] = []
    environ = {"HTTP_AMZ_SDK_INVOCATION_ID": call} if call else {}
    body = b"".join(application(environ, lambda status, _: said.append(status)))
    return said[0], body


def test_a_call_that_is_repeated_gets_the_answer_that_was_lost() -> None:
    application = Remembering(Counting())

    assert [("200 OK", b"1")] * 2 == [ask(application, "one"), ask(application, "one")]
    assert ("200 OK", b"2") == ask(application, "another")


def test_what_failed_is_done_anew() -> None:
    application = Remembering(Counting(failing=1))

    assert ("503 Away", b"1") == ask(application, "one")
    assert ("200 OK", b"2") == ask(application, "one")


def test_calls_without_an_id_are_not_mixed_up() -> None:
    application = Remembering(Counting())

    assert [b"1", b"2"] == [ask(application)[1], ask(application)[1]]
