"""A small part of ``make test-xds``: Envoy judges random valid resources, and sees mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.xds.drawing import draw_cases
from tests.xds.envoy import refusal, refused_cases
from tests.xds.rendering import Rendered, render, static_bootstrap
from tests.xds.seeded import CASE, MISTAKES, with_mistake


def test_configuration_when_the_resource_is_valid_then_envoy_takes_it(tmp_path: Path) -> None:
    assert refused_cases([CASE, *draw_cases(100)], tmp_path) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.__name__.lstrip("_"))
def test_configuration_when_it_has_a_mistake_then_envoy_refuses_it(
    mistake: Callable[[Rendered], None], tmp_path: Path
) -> None:
    sound = render(CASE, tmp_path)
    assert refusal(static_bootstrap([sound] * 3), tmp_path) is None
    batch = [sound, with_mistake(sound, mistake), sound]
    assert refusal(static_bootstrap(batch), tmp_path) is not None
