"""All that conditions, messages and Events are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from llmfleet.api import KIND, clean_line
from llmfleet.planning.acceptance import Acceptance
from llmfleet.planning.children.intended import Intended
from llmfleet.planning.children.router import preview_key
from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.ends import Diagnosis
from llmfleet.planning.rollout.stage import Rollout
from llmfleet.planning.snapshot import JSON, ObservedObject
from llmfleet.planning.stage import ConditionValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One decision, before it is told."""

    facts: Facts
    rollout: Rollout
    acceptance: Acceptance
    capacity: ConditionValue
    intended: Intended
    trouble: Diagnosis | None
    """The worst pod of the revision on its way up, else of the served one."""
    stable_trouble: Diagnosis | None
    """The worst pod of the served revision."""
    now: datetime

    @property
    def rejected(self) -> str | None:
        """Hash that spec asks for although it was rejected."""
        spec = self.facts.spec_revision
        return spec if spec in self.rollout.advance.rejected else None

    @property
    def traffic_sentence(self) -> str:
        """Who gets the requests; nobody is said to be served while none is answered."""
        facts, traffic = self.facts, self.rollout.split.traffic
        ready = any(facts.arm(name).ready for name in traffic)
        return describe_traffic(traffic, answered=ready and facts.routers.ready > 0)

    @property
    def url(self) -> str | None:
        """The stable address; None while its name is another's, who would get the requests."""
        deployment = self.facts.deployment
        return None if self._is_taken(deployment.metadata.name) else deployment.url

    @property
    def preview_url(self) -> str | None:
        """The preview address; None without one, or while its name is another's."""
        deployment = self.facts.deployment
        taken = self._is_taken(preview_key(deployment.metadata.name).name)
        return None if taken else deployment.preview_url

    @property
    def without_comparison(self) -> str:
        """That a first revision takes the place of one that was good, as the end of a sentence.

        The LLMDeployment was deleted and made again with another spec: what clients got before is
        known by its hash, and nothing of it runs that the new one could be compared with.
        """
        good, target = self.facts.memory.last_good, self.rollout.target
        if self.rollout.stable is not None or good is None or target in {None, good.hash}:
            return ""
        return (
            f"; {good.hash} was served under this name before it was deleted, and nothing of it is"
            f" there to compare {target} with: set spec back to serve that one again"
        )

    @property
    def foreign_sentence(self) -> str:
        """Who has the names that are in the way, and what to do."""
        name = self.facts.deployment.metadata.name
        taken = [
            f"{each.key.kind} {each.key.name} belongs to {describe_owner(each, name)}"
            for each in self.intended.foreign
        ]
        without = [
            f"{name} has no {what}"
            for what, there in (
                ("address", self.url is not None),
                ("preview address", self.preview_url == self.facts.deployment.preview_url),
            )
            if not there
        ]
        lacks = f"; {' and '.join(without)} meanwhile" if without else ""
        return f"{', '.join(taken)} and is left alone: rename or delete it{lacks}"

    def _is_taken(self, service: str) -> bool:
        return any(
            each.key.kind == "Service" and each.key.name == service
            for each in self.intended.foreign
        )


def describe_owner(found: ObservedObject, name: str) -> str:
    """Who has an object: its controller, else whoever says that he manages it.

    Args:
        found: the object.
        name: of the LLMDeployment that wants its name. A deleted one of the same name may still
            have children, until the garbage collector has been there.

    Example:
        >>> from llmfleet.planning.snapshot import ObjectKey
        >>> key = ObjectKey(api_version="v1", kind="Service", name="chat")
        >>> owner = {"kind": "LLMDeployment", "name": "other", "controller": True}
        >>> facts = dict(key=key, uid="u", resource_version="1", owner_uid=None, deleting=False)
        >>> describe_owner(ObservedObject(body={"metadata": {"ownerReferences": [owner]}}, **facts),
        ...     "chat")
        'LLMDeployment other'
        >>> describe_owner(ObservedObject(body={"metadata": {"name": "chat"}}, **facts), "chat")
        'nobody who says so'
    """
    meta: JSON = found.body.get("metadata") or {}
    labels = meta.get("labels") or {}
    owners = meta.get("ownerReferences") or []
    first = next((each for each in owners if each.get("controller")), None)
    if first is not None and (first.get("kind"), first.get("name")) == (KIND, name):
        text = f"the LLMDeployment {name} that was deleted, with which it goes"
    elif first is not None:
        text = f"{first.get('kind')} {first.get('name')}"
    elif labels.get("app.kubernetes.io/instance"):
        text = f"the release {labels['app.kubernetes.io/instance']}"
    else:
        managers = [each.get("manager") for each in meta.get("managedFields") or []]
        who = labels.get("app.kubernetes.io/managed-by") or next(filter(None, managers), None)
        text = f"whoever made it with {who}" if who else "nobody who says so"
    return clean_line(text)


def count(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "router"), count(2, "router")
        ('1 router', '2 routers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_traffic(traffic: Mapping[str, int], *, answered: bool = True) -> str:
    """Who gets the requests, as the command says.

    Args:
        traffic: percent by revision.
        answered: whether clients get answers at all.

    Example:
        >>> describe_traffic({"5d41": 100}), describe_traffic({"7c9f": 25, "5d41": 75})
        ('5d41 is served', '5d41 has 75 % and 7c9f 25 % of the requests')
        >>> describe_traffic({}), describe_traffic({"5d41": 100}, answered=False)
        ('nothing is served', 'all requests go to 5d41')
    """
    if not traffic:
        return "nothing is served"
    (first, most), *rest = sorted(traffic.items(), key=lambda each: (-each[1], each[0]))
    if most == 100:
        return f"{first} is served" if answered else f"all requests go to {first}"
    shares = [f"{first} has {most} %", *(f"{name} {weight} %" for name, weight in rest)]
    return f"{' and '.join(shares)} of the requests"
