"""The cluster that these tests share. Each test leaves it healthy.

It is removed before the next cluster is created.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Lab, cluster


@pytest.fixture(scope="package")
def ha(kubectl_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running cluster of three masters and two workers."""
    for lab in cluster("ha"):
        lab.up()
        lab.kubectl_binary = kubectl_binary
        lab.kubeconfig = tmp_path_factory.mktemp("ha") / "kubeconfig"
        lab.clusterctl("kubeconfig", "-o", lab.kubeconfig)
        yield lab
