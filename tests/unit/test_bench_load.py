"""The load client's requests: well formed, and never the same twice."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

from bench.load import LoadPlan, Requests
from bench.web import IN_BATCH, etcd_plans, our_plans


def parts(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {line.split(": ")[0].lower(): line.split(": ")[1] for line in lines}, body


@pytest.mark.parametrize("plan", [*our_plans(1, "ur_x").values(), *etcd_plans(1).values()])
def test_a_request_states_the_length_of_its_body(plan: LoadPlan) -> None:
    requests = Requests(plan)
    for _ in range(3):
        _, headers, body = parts(next(requests))
        assert int(headers.get("content-length", 0)) == len(body)
        if body:
            json.loads(body)


def test_puts_go_to_one_key_after_the_other_and_bring_something_new() -> None:
    requests = Requests(our_plans(1, "ur_x")["put"])
    (one, _, first), (other, _, second) = parts(next(requests)), parts(next(requests))
    assert one == "PUT /v1/default/settings/k0000000 HTTP/1.1"
    assert other == "PUT /v1/default/settings/k0000001 HTTP/1.1"
    assert json.loads(first) != json.loads(second)
    assert len(json.loads(first)["spec"]["value"]) == 500


def test_a_batch_has_so_many_records_of_different_names() -> None:
    _, _, body = parts(next(Requests(our_plans(1, "ur_x")["batch"])))
    assert len({each["name"] for each in json.loads(body)["operations"]}) == IN_BATCH


def test_etcd_gets_values_of_the_same_length() -> None:
    _, _, body = parts(next(Requests(etcd_plans(1)["put"])))
    assert b64decode(json.loads(body)["key"]) == b"k0000000"
    assert len(b64decode(json.loads(body)["value"])) == 500
