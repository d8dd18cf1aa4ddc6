"""A bundle's bill of materials in CycloneDX 1.6: its files, by version and SHA-256. Pure.

Each file is one component. The modules of a program are in its `go.sum`, under
`provision/artifacts/modules`.
"""

from __future__ import annotations

import json

from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet


def cyclonedx(artifacts: ArtifactSet, name: str) -> str:
    """Write the document as JSON. The same artifacts give the same text.

    Args:
        artifacts: in the bundle.
        name: of the bundle's file.
    """
    components = [
        {
            "type": "container" if item.name == IMAGES else "application",
            "bom-ref": f"{item.name}@{item.version}?arch={arch}",
            "name": item.name,
            "version": item.version,
            "hashes": [{"alg": "SHA-256", "content": item.pin}],
            "properties": [{"name": "clusterctl:arch", "value": arch}],
        }
        for (_, arch), item in sorted(artifacts.items.items())
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "file", "bom-ref": name, "name": name}},
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"
