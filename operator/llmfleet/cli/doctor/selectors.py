"""Label selectors, as Kubernetes reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]


def selects(selector: JSON | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector selects what has these labels: None selects nothing, ``{}`` everything.

    >>> selects({"matchLabels": {"release": "prom"}}, {"release": "prom", "app": "x"})
    True
    >>> selects({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "b"})
    False
    """
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(each, labels) for each in selector.get("matchExpressions") or []
    )


def _meets(expression: JSON, labels: Mapping[str, str]) -> bool:
    has, values = expression.get("key") in labels, expression.get("values") or []
    match expression.get("operator"):
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "In":
            return has and labels[expression["key"]] in values
        case "NotIn":
            return not has or labels[expression["key"]] not in values
    return False
