"""The OpenAPI 3.1 description of the gateway, from the specs of its use cases.

The schemas are closed and say what the checks in `request` say, so that a client that keeps to them
is never refused for its fields. The Open Inference Protocol describes itself.
"""

from collections.abc import Mapping
from typing import Any, Final

from mlplatform.contracts import UseCase
from mlplatform.contracts.usecase.operation import RequestField, Serving
from serving.gateway import refusal
from serving.gateway.example import example
from serving.gateway.request import (
    EVENT_TIME,
    FIRST_YEAR,
    LAST_YEAR,
    LONGEST_ID,
    LONGEST_STRING,
    REQUEST_ID,
    bounds,
    pattern,
)
from serving.gateway.scoring import REASONS

_Schema = dict[str, Any]

_ERRORS: Final = {
    refusal.NOT_JSON: "The body is not JSON in UTF-8.",
    refusal.TOO_SLOW: "The body did not come in time.",
    refusal.TOO_LARGE: "The body is too long.",
    refusal.WRONG_MEDIA: "The body is not application/json.",
    refusal.INVALID: "A field is wrong; its name is in the answer.",
    refusal.OVERLOADED: "Too much is open; Retry-After says when to try again.",
    500: "The request could not be answered.",
}
_ERROR_REF: Final = {"$ref": "#/components/schemas/Error"}


def description(usecases: Mapping[str, UseCase], version: str) -> _Schema:
    """Return the description of a gateway that serves these use cases."""
    schemas: _Schema = {"Error": _error(), "Latency": _latency()}
    paths: _Schema = {}
    for name, spec in usecases.items():
        schemas[f"{name}.request"] = _request(spec.serving)
        schemas[f"{name}.answer"] = _answer(spec)
        paths[f"/v1/{name}/score"] = {"post": _score(name, spec)}
    paths["/livez"] = {"get": _page("alive", "Whether the process is alive.")}
    paths["/readyz"] = {"get": _page("ready", "Whether traffic should come here.", 503)}
    paths["/openapi.json"] = {"get": _page("openapi", "This description.")}
    paths["/"] = {"get": _page("index", "What there is.")}
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Metrics for Prometheus.",
            "responses": {
                "200": {
                    "description": "Prometheus' text format.",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                }
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlplatform gateway",
            "version": version,
            "description": "Scores requests. It also speaks the Open Inference Protocol v2 "
            "under /v2.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _score(name: str, spec: UseCase) -> _Schema:
    request = {"$ref": f"#/components/schemas/{name}.request"}
    answer = {"$ref": f"#/components/schemas/{name}.answer"}
    rows = {"minItems": 1, "maxItems": spec.serving.max_rows}
    one = _example(spec.serving)
    examples = {} if one is None else {"one": {"value": one}, "batch": {"value": [one]}}
    errors = {
        str(status): {"description": what, "content": {"application/json": {"schema": _ERROR_REF}}}
        for status, what in _ERRORS.items()
    }
    errors[str(refusal.OVERLOADED)]["headers"] = {
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
    }
    return {
        "operationId": f"score_{name}",
        "summary": spec.goal.ml_objective,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [request, {"type": "array", "items": request, **rows}]},
                    "examples": examples,
                }
            },
        },
        "responses": {
            "200": {
                "description": "The score of each row, in order.",
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [answer, {"type": "array", "items": answer, **rows}]}
                    }
                },
            },
            **errors,
        },
    }


def _page(name: str, summary: str, *statuses: int) -> _Schema:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            str(status): {"description": summary, "content": content} for status in (200, *statuses)
        },
    }


def _request(serving: Serving) -> _Schema:
    optional = {EVENT_TIME: "When the prediction is made; default: now."}
    properties = {name: _field(field) for name, field in serving.request.items()}
    properties[EVENT_TIME] = _nullable(_moment()) | {"description": optional[EVENT_TIME]}
    properties[REQUEST_ID] = _nullable(
        {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}
    ) | {
        "description": "Comes back in the answer and names the row in the log; default: a new one."
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, field in serving.request.items() if not field.optional],
        "additionalProperties": False,
    }


def _field(field: RequestField) -> _Schema:
    schema: _Schema
    if field.type == "timestamp":
        schema = _moment()
    elif field.type == "string":
        schema = {"type": "string", "maxLength": LONGEST_STRING}
        if field.values:
            # Null is one of the values where the field is optional.
            return {"enum": [*field.values, *([None] if field.optional else [])]}
        if whole := pattern(field):
            schema["pattern"] = whole
    else:
        schema = {"type": "integer" if field.type == "integer" else "number"}
        if limits := bounds(field):
            kind = int if field.type == "integer" else float
            schema |= {"minimum": kind(limits[0]), "maximum": kind(limits[1])}
    return _nullable(schema) if field.optional else schema


def _moment() -> _Schema:
    years = f"{FIRST_YEAR // 100}"
    return {
        "type": "string",
        "format": "date-time",
        "pattern": f"^{years}[0-9]{{2}}-",
        "description": f"RFC 3339 with its zone, {FIRST_YEAR} to {LAST_YEAR}.",
    }


def _nullable(schema: _Schema) -> _Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _answer(spec: UseCase) -> _Schema:
    reasons = [*REASONS, *(f"stale:{view}" for view in spec.serving.required_views)]
    properties: _Schema = {
        REQUEST_ID: {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer", "minimum": 0, "description": "0: the rules answered."},
        "arm": {"enum": ["champion", "challenger", "rules"]},
        "epoch": {"type": "integer", "minimum": 0, "description": "Of the route; 0: none."},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"type": "boolean", "description": "The score reached the threshold."},
        "degraded": {"type": "boolean", "description": "Scored without some features."},
        "fallback": {"type": "boolean", "description": "The rules answered, not a model."},
        "reasons": {"type": "array", "items": {"enum": reasons}},
        "latency": {"$ref": "#/components/schemas/Latency"},
    }
    return _closed(properties)


def _latency() -> _Schema:
    hops = ("total_us", "features_us", "inference_us", "decision_us")
    return _closed({hop: {"type": "integer", "minimum": 0} for hop in hops})


def _error() -> _Schema:
    inner = _closed(
        {
            "message": {"type": "string"},
            "field": {"type": ["string", "null"]},
            "row": {"type": ["integer", "null"], "minimum": 0},
        }
    )
    return _closed({"error": inner})


def _closed(properties: _Schema) -> _Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _example(serving: Serving) -> _Schema | None:
    found = {name: example(field) for name, field in serving.request.items()}
    if any(found[name] is None for name, field in serving.request.items() if not field.optional):
        return None
    return {**found, EVENT_TIME: "2024-06-01T12:00:00Z", REQUEST_ID: "example-1"}
