"""Replace certificates, authorities and keys on a running cluster, and after they have expired."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CLUSTERCTL, ENGINE, ETCDCTL, Lab, cluster, run, until
from tests.e2e.sample import long
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

FIND = (
    "find /etc/kubernetes /etc/etcd /var/lib/kubelet/pki "
    "-name '*.crt' -o -name 'kubelet-client-current.pem'"
)


@pytest.fixture(scope="module")
def asleep() -> Iterator[Lab]:
    """A cluster that is created and switched off until its certificates have expired."""
    for lab in cluster("expired"):
        lab.up()
        run(ENGINE, "stop", "-t", "2", lab.container("n1"))
        yield lab


@pytest.fixture(scope="module", autouse=True)
def expiring(request: pytest.FixtureRequest) -> None:
    """Create that cluster first, if a test uses it. It expires while the other tests run."""
    last = test_a_cluster_recovers_after_all_its_certificates_expired
    if any(item.name == last.__name__ for item in request.session.items):
        request.getfixturevalue("asleep")


def listed(lab: Lab, *arguments: str) -> list[dict[str, object]]:
    return json.loads(lab.clusterctl("certs list", "-o", "json", *arguments, check=False).stdout)


def keys(lab: Lab) -> dict[str, str]:
    """Machine -> SHA-256 of the private keys of all leaf certificates."""
    command = (
        "cd / && sha256sum /var/lib/kubelet/pki/*.key /var/lib/kubelet/pki/kubelet-client-current.pem "
        "$(find /etc/kubernetes/pki /etc/etcd -name '*.key' ! -name ca.key ! -name '*-ca.key' "
        "! -name sa.key ! -name encryption.key ! -name network.key) | sort"
    )
    return {name: lab.on(name, command) for name in lab.addresses()}


def served(lab: Lab, name: str) -> str:
    """The serial number of the certificate that a machine's apiserver shows to clients."""
    address = lab.addresses()[name]
    shown = run("openssl", "s_client", "-connect", f"{address}:6443", stdin="", check=False).stdout
    return run("openssl", "x509", "-noout", "-serial", stdin=shown).stdout


def new_kubeconfig(lab: Lab) -> None:
    lab.clusterctl("kubeconfig", "-o", lab.kubeconfig)


def test_the_list_has_every_certificate_with_the_date_that_openssl_shows(ha: Lab) -> None:
    rows = listed(ha)
    for machine in ("m1", "w1"):
        shown = ha.on(machine, f"for f in $({FIND}); do echo $f; openssl x509 -noout -enddate "
                       "-dateopt iso_8601 -in $f; done").split("\n")  # fmt: skip
        openssl = {
            path: end.removeprefix("notAfter=").removesuffix("Z")
            for path, end in zip(shown[::2], shown[1::2], strict=False)
        }
        ours = {
            str(row["path"]): str(row["expires"]).replace("T", " ").removesuffix("+00:00")
            for row in reversed(rows)
            if row["machine"] == machine
        }
        assert openssl
        assert {path: ours[path] for path in openssl} == openssl
    assert ha.clusterctl("certs list", check=False).returncode == 0
    assert ha.clusterctl("certs list", "--warn-days", "5000", check=False).returncode == 2


@long(80)
def test_everything_is_renewed_with_new_keys_and_no_request_fails(ha: Lab) -> None:
    assert ha.kubeconfig is not None
    before, shown = keys(ha), {name: served(ha, name) for name in ("m1", "m2", "m3")}
    with Traffic(ha.kubeconfig) as traffic:
        done = ha.clusterctl("certs renew", "--all", "-o", "json")
    assert traffic.went_on()
    report = json.loads(done.stdout)
    print(f"renewed in {sum(report['seconds'].values()):.0f} s: {report['seconds']}")
    assert sorted(report["issued"]) == ["m1", "m2", "m3", "w1", "w2"]
    for name, after in keys(ha).items():
        assert not set(after.splitlines()) & set(before[name].splitlines())
    for name, serial in shown.items():
        assert served(ha, name) != serial
    assert ha.clusterctl("plan").returncode == 0


def test_an_unreachable_machine_stops_a_replacement_before_it_begins(ha: Lab) -> None:
    run(ENGINE, "pause", ha.container("w2"))
    try:
        done = ha.clusterctl("certs rotate-ca", "--ca", "front-proxy", check=False)
    finally:
        run(ENGINE, "unpause", ha.container("w2"))
    assert done.returncode == 6
    assert "w2" in done.stderr
    until("healthy", lambda: ha.clusterctl("status", check=False).returncode == 0)
    assert ha.clusterctl("plan").returncode == 0


@long(315)
def test_authorities_are_replaced_in_stages_and_no_request_fails(ha: Lab, tmp_path: Path) -> None:
    from provision.local.cache import Cache

    assert ha.kubeconfig is not None
    old = ha.on("m1", "cat /etc/kubernetes/pki/ca.crt")
    held = tmp_path / "held"
    held.write_text(ha.kubeconfig.read_text())
    # A client's kubeconfig works until the old authority is withdrawn. The test kills the run then.
    with Traffic(held) as traffic:
        rotation = subprocess.Popen(
            [CLUSTERCTL, "certs", "rotate-ca", ha.inventory], stderr=subprocess.PIPE, text=True
        )
        assert rotation.stderr is not None
        for line in rotation.stderr:
            print(line, end="")
            if "stage" in line and "no longer accepted" in line:
                break
        rotation.kill()
        rotation.wait()
        rotation.stderr.close()
    assert traffic.went_on()
    # Another computer continues. It has only SSH and the inventory.
    Cache("test-ha", ha.inventory).forget()
    new_kubeconfig(ha)
    # An unreachable machine stops the replacement, and nothing else.
    run(ENGINE, "pause", ha.container("w2"))
    try:
        held_up = ha.clusterctl("certs rotate-ca", check=False)
        ha.kubectl("get", "nodes")
    finally:
        run(ENGINE, "unpause", ha.container("w2"))
    assert held_up.returncode == 6
    for word in ("the stage is not finished", "w2: ", "Now: ", "accepted"):
        assert word in held_up.stderr
    with Traffic(ha.kubeconfig) as traffic:
        done = ha.clusterctl("certs rotate-ca", "-o", "json")
    assert traffic.went_on()
    print(f"the rest took {sum(json.loads(done.stdout)['seconds'].values()):.0f} s")

    former = tmp_path / "former.crt"
    former.write_text(old)
    for machine in ha.addresses():
        bundle = ha.on(machine, "cat /etc/kubernetes/pki/ca.crt")
        assert bundle.count("BEGIN CERTIFICATE") == 1
        assert bundle != old
    # Pods that read the old authority when they started still know the apiserver.
    endpoint = json.loads(ha.clusterctl("status", "-o", "json").stdout)["endpoints"]["clients"]
    code = run("curl", "-s", "--cacert", former, "-o", "/dev/null", "-w", "%{http_code}", endpoint)
    assert code.stdout == "401"
    refused = run(ha.kubectl_binary, f"--kubeconfig={held}", "get", "nodes", check=False)
    assert refused.returncode != 0
    assert ha.clusterctl("plan").returncode == 0
    ha.clusterctl("verify")


@long(135)
def test_every_secret_is_encrypted_with_the_new_key(ha: Lab) -> None:
    ha.kubectl("create", "secret", "generic", "kept", "--from-literal=word=correct-horse")
    try:
        ha.clusterctl("secrets rotate-key")
        raw = ha.on("m1", f"{ETCDCTL} get /registry/secrets/ --prefix | base64 -w0")
        content = base64.b64decode(raw)
        assert b"k8s:enc:secretbox:v1:key2:" in content
        assert b"k8s:enc:secretbox:v1:key1:" not in content
        assert b"correct-horse" not in content
        word = ha.kubectl("get", "secret", "kept", "-o", "jsonpath={.data.word}").stdout
        assert base64.b64decode(word) == b"correct-horse"
        assert ha.on("m2", "grep -c 'name: key' /etc/kubernetes/encryption.yaml") == "1\n"
    finally:
        ha.kubectl("delete", "secret", "kept")


@long(430)
def test_a_cluster_recovers_after_all_its_certificates_expired(asleep: Lab) -> None:
    asleep.clusterctl("machines up")
    until(
        "all leaves expired",
        lambda: all(
            row["kind"] == "authority" or int(str(row["days_left"])) < 0 for row in listed(asleep)
        ),
        400,
    )
    dead = asleep.clusterctl("kubectl", "--", "get", "nodes", check=False)
    assert dead.returncode != 0

    asleep.clusterctl("certs recover")

    nodes = asleep.clusterctl("kubectl", "--", "get", "nodes", "--no-headers").stdout
    assert nodes.split()[:2] == ["n1", "Ready"]
    asleep.clusterctl("verify")
