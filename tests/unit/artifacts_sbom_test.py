"""A bundle's bill of materials: all of it, by hash, in CycloneDX as its own library reads it."""

import json
from io import StringIO

from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion

from provision.artifacts.sbom import cyclonedx
from tests.world import DEFAULT, artifacts


def test_every_artifact_is_named_with_its_version_and_hash():
    have = artifacts(DEFAULT)
    document = json.loads(cyclonedx(have, "bundle.tar.zst"))

    assert {
        (c["name"], c["version"], c["hashes"][0]["content"]) for c in document["components"]
    } == {(item.name, item.version, item.pin) for item in have.items.values()}


def test_the_sbom_fits_cyclonedxs_schema_and_is_reproducible():
    # It compiles grammars for three seconds: not in every process that only collects tests.
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    text = cyclonedx(artifacts(DEFAULT), "bundle.tar.zst")

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert len(Bom.from_json(json.load(StringIO(text))).components) == len(artifacts(DEFAULT).items)
    assert cyclonedx(artifacts(DEFAULT), "bundle.tar.zst") == text
