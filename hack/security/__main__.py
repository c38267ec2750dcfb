"""``make check-security``: checkov over the chart and over everything the planner renders."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from hack.bench.report import Target, finish, skipped
from hack.security.checkov import install, scan
from hack.security.exceptions import WAIVERS, waiver_for
from hack.security.rendered import JSON, chart, children, resources

_SEEDED: JSON = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "seeded", "namespace": "default"},
    "spec": {
        "hostNetwork": True,
        "containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}],
    },
}
"""A pod that breaks the rules: what the scanner says about it shows that it looks."""


def main() -> int:
    """Scan, print the targets, return the exit status."""
    cache = Path(os.environ.get("LLMFLEET_CACHE") or Path.home() / ".cache" / "llmfleet")
    helm = shutil.which("helm", path=f"{cache / 'bin'}:{os.environ.get('PATH', '')}")
    program = install()
    documents = {f"children-{name}": children(raw) for name, raw in resources()}
    if helm:
        documents["chart"] = tuple(chart(helm))
        documents["chart-namespaced"] = tuple(chart(helm, "--set", "watchNamespaces={team-a}"))
    print(f"scanning {sum(map(len, documents.values()))} objects …", file=sys.stderr)
    found = scan(program, documents)
    seeded = scan(program, {"seeded": [_SEEDED]})
    waived = [(each, waiver_for(each.check, each.resource)) for each in found.findings]
    open_findings = [each for each, waiver in waived if waiver is None]
    for each in open_findings:
        print(f"  {each.check} {each.resource} ({each.document}): {each.title}")
    used = Counter(waiver for _, waiver in waived if waiver is not None)
    for waiver in WAIVERS:
        print(f"  waived {waiver.check} on {used[waiver]} objects: {waiver.why}")
    unused = [each.check for each in WAIVERS if not used[each]]
    targets = [
        Target(
            name="failed policies",
            figure=f"{len(open_findings)} of {found.passed + len(found.findings)} checks on"
            f" {found.objects} objects (checkov {found.version})",
            target="0, waivers with a sentence aside",
            holds=not open_findings and not found.unparsed and not found.skipped,
        ),
        Target(
            name="waivers without need",
            figure=f"{len(unused)} of {len(WAIVERS)} {' '.join(unused)}".strip(),
            target="0",
            holds=not unused,
        ),
        Target(
            name="the scanner sees a seeded bad pod",
            figure=f"{len(seeded.findings)} findings",
            target="privileged and hostNetwork among them",
            holds={"CKV_K8S_16", "CKV_K8S_19"} <= {each.check for each in seeded.findings},
        ),
    ]
    if not helm:
        targets.append(skipped("chart", "scanned", "helm: run `make cluster-build`"))
    details = {
        "documents": {name: len(bodies) for name, bodies in documents.items()},
        "findings": [f"{each.check} {each.resource}" for each in open_findings],
        "waived": {each.check: count for each, count in used.items()},
    }
    return finish("check-security", targets, details)


if __name__ == "__main__":
    raise SystemExit(main())
