"""The table of checks in docs/security.md: `python -m provision.commands.audit.document`."""

from __future__ import annotations

import sys

from provision.commands.audit.checks import checks

BEGIN = "<!-- Below: `python -m provision.commands.audit.document`; a test compares. -->\n"

_CHAPTERS = {
    "1.1": "Files of the control plane",
    "1.2": "kube-apiserver",
    "1.3": "kube-controller-manager",
    "1.4": "kube-scheduler",
    "2": "etcd",
    "3": "Audit log",
    "4.1": "Files of the nodes",
    "4.2": "kubelet",
    "4.3": "kube-proxy",
}


def markdown() -> str:
    """A table for each chapter of the benchmark; checks that are not scored are marked."""
    mark = {True: "", False: r" \*"}
    parts = []
    for chapter, title in _CHAPTERS.items():
        rows = [
            f"| {check.id}{mark[check.scored]} | {check.what} | {check.how} |"
            for check in checks()
            if check.id.startswith(f"{chapter}.")
        ]
        head = [f"### {title}", "", "| CIS | What must hold | How it does |", "|---|---|---|"]
        parts.append("\n".join([*head, *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(markdown())
