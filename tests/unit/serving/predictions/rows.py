"""Rows of the prediction log, as a gateway would make them."""

import struct

from mlplatform.contracts.prediction import Prediction


def make_row(sequence: int, gateway: str = "gateway-1", **other: object) -> Prediction:
    content: dict[str, object] = {
        "gateway": gateway,
        "sequence": sequence,
        "request_id": f"{gateway}:{sequence}",
        "usecase": "flights",
        "event_time": 1_388_534_400_000_000 + sequence,
        "received_at": 1_700_000_000_000_000 + sequence,
        "entity": f"AA|{sequence}",
        "request": {"carrier": "AA", "number": sequence, "delay": None, "distance": 1.5},
        "arm": "champion",
        "version": 3,
        "epoch": 7,
        "service": "flights_v1",
        "features": struct.pack("<3f", sequence, float("nan"), 0.5),
        "feature_times": (1_388_534_300_000_000, 0),
        "score": 0.25,
        "decision": False,
        "degraded": True,
        "fallback": False,
        "reasons": ("stale:weather",),
        "total_us": 900,
        "features_us": 200,
        "inference_us": 300,
        "decision_us": 50,
    }
    return Prediction(**{**content, **other})  # type: ignore[arg-type]
