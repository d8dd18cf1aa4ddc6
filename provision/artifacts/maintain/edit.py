"""Add a release to the text of the catalogue. Comments and all other lines stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from provision.artifacts.catalogue import Catalogue

Sums = Mapping[tuple[str, str], str]


def with_version(text: str, kubernetes: str) -> str:
    """Add a version of Kubernetes without checksums, with the components of the newest set."""
    known = Catalogue.parse(text)
    if kubernetes in known.versions:
        return text
    newest = max(known.versions, key=_numbers)
    release = known.kubernetes[newest].model_dump(exclude_none=True)
    release["sha256"] = {name: {} for name in release["sha256"]}
    line = yaml.safe_dump(known.sets[newest], default_flow_style=True, sort_keys=False, width=1000)
    text = _inserted(text, "sets", f'  "{kubernetes}": {line}')
    return _inserted(text, "kubernetes", _entry(kubernetes, release))


def with_sums(text: str, kubernetes: str, sums: Sums) -> str:
    """Add checksums.

    Args:
        text: of the catalogue, with the version.
        kubernetes: the version of Kubernetes whose set has these files.
        sums: (name, arch) -> SHA-256; such as `("kubernetes/kubelet", "amd64")` -> 64 digits.
    """
    known = Catalogue.parse(text)
    versions = {"kubernetes": kubernetes, **known.sets[kubernetes]}
    releases = {"kubernetes": known.kubernetes, **known.components}
    for component in sorted({name.partition("/")[0] for name, _ in sums}):
        version = versions[component]
        release = releases[component][version].model_dump(exclude_none=True)
        for (name, arch), sha256 in sums.items():
            of, _, artifact = name.partition("/")
            if of == component:
                mapping = release["sha256"]
                (mapping if "members" in release else mapping[artifact])[arch] = sha256
        text = _replaced(text, component, version, _entry(version, release))
    return text


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _entry(version: str, release: Mapping[str, object]) -> str:
    body = yaml.safe_dump(dict(release), sort_keys=False, width=1000)
    return f'  "{version}":\n' + "".join(f"    {line}\n" for line in body.splitlines())


def _inserted(text: str, section: str, entry: str) -> str:
    return re.sub(rf"^{section}:\n", lambda found: found[0] + entry, text, count=1, flags=re.M)


def _replaced(text: str, section: str, version: str, entry: str) -> str:
    before, heading, after = re.split(rf"^({section}:\n)", text, maxsplit=1, flags=re.M)
    own = rf'^  "{re.escape(version)}":\n(?:    .*\n)+'
    return before + heading + re.sub(own, lambda _: entry, after, count=1, flags=re.M)
