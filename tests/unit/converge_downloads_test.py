"""With the source `auto`, new machines are asked for the servers once the source is chosen."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from provision.artifacts.model import ArtifactSet
from provision.commands.converge import _check_downloads
from provision.desired.catalog import spaces
from provision.model.errors import PreflightError
from provision.model.look import Look
from provision.model.observed import Place
from provision.model.settings.components import ArtifactsSource
from provision.observe.parse import unreachable
from provision.observe.script import query
from tests.world import cluster, converged, fit_host

OF = cluster(artifacts=ArtifactsSource(source="auto"))


class Session:
    """Machines that answer what they are asked. No machine reaches w2: it is off."""

    def __init__(self, seen, *, servers=True):
        self.seen, self.servers = seen, servers
        self.cluster, self.cache = OF, SimpleNamespace(trust=lambda: None)

    def observe(self, names, **questions):
        return Look(OF, {name: self.answer(name, **questions) for name in names})

    def answer(self, name, **questions):
        asked = query(OF, OF.machine(name), **questions)
        view, off = self.seen[name], str(OF.machine("w2").address)
        places = view.host.places if questions.get("reachability") else ()
        reaches = {address: address != off for address, _ in asked.peers}
        downloads = {server: self.servers for server, _ in asked.downloads}
        host = replace(view.host, reaches=reaches, downloads=downloads, places=places)
        return replace(view, host=host)


@pytest.fixture
def seen():
    """A running cluster; w1 is new, has a small /var and enough space elsewhere; w2 is off."""
    _, observed = converged(OF)
    views = {one.name: replace(observed[one.name], host=fit_host(one)) for one in OF.machines}
    space = tuple(
        Place(path, "/data", "/data", free=90_000) for path in spaces(OF, OF.machine("w1"))
    )
    host = replace(views["w1"].host, var_free=1, places=space)
    views["w1"] = replace(views["w1"], host=host, record={}, fingerprint="", cluster="")
    views["w2"] = unreachable("w2", "it is off", off=True)
    return Look(OF, views)


def test_a_machine_that_is_off_does_not_make_a_new_one_unfit(seen):
    _check_downloads(Session(seen), seen, ArtifactSet("official", {}))


def test_a_server_that_does_not_answer_a_new_machine_is_found(seen):
    with pytest.raises(PreflightError) as refused:
        _check_downloads(Session(seen, servers=False), seen, ArtifactSet("official", {}))
    assert {finding.where for finding in refused.value.findings if finding.fatal} == {"w1"}
    assert any("gets no answer from" in f.what for f in refused.value.findings)
