"""What the agent takes from EndpointSlices."""

from __future__ import annotations

from typing import Any

import pytest

from llmfleet_router.kube import ready_endpoints
from llmfleet_router.model import Endpoint

JSON = dict[str, Any]
GOOD = Endpoint(address="10.0.0.1", port=8000)


def endpoint_slice(address: str = "10.0.0.1", **port: Any) -> JSON:
    return {
        "metadata": {"labels": {"llmfleet.dev/revision": "aaaa"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", **port}],
        "endpoints": [{"addresses": [address]}],
    }


@pytest.mark.parametrize(
    "other",
    [
        endpoint_slice(),
        endpoint_slice(port=None),
        endpoint_slice("010.000.000.001", port=8000),
        endpoint_slice("engine.example", port=8000),
    ],
    ids=["no port", "port null", "leading zeros", "a name"],
)
def test_endpoints_when_a_slice_has_what_envoy_refuses_then_it_is_left_out(other: JSON) -> None:
    assert ready_endpoints([other, endpoint_slice(port=8000)]) == {"aaaa": (GOOD,)}
