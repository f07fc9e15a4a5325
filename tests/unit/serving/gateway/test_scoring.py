"""What a request is answered with while everything works."""

from tests.unit.serving.gateway.stack import Gateway, request


def test_one_object_is_answered_with_one_object(gateway: Gateway) -> None:
    reply = gateway.score(request(request_id="mine"))

    assert 200 == reply.status
    answer = reply.json
    assert ("mine", "flight_delay", 3, "champion", 1) == tuple(
        answer[name] for name in ("request_id", "model", "version", "arm", "epoch")
    )
    assert (False, False, []) == (answer["degraded"], answer["fallback"], answer["reasons"])
