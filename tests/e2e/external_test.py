"""A cluster with an external authority: only openssl, outside the cluster, holds the signing keys.

The tests run in the order of the file: the first test creates the cluster for the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from platformdirs import user_state_path

from provision.local.cache import Cache
from tests.e2e.conftest import Lab, cluster, ready, run, until
from tests.e2e.sample import long

# The tests run in the order of the file.
pytestmark = [pytest.mark.e2e, long(165, together="external_test.py")]

AUTHORITIES = ("kubernetes-ca", "etcd-ca", "front-proxy-ca")
NODES = {"n1": "True", "n2": "True"}
REQUESTS = "/var/lib/clusterctl/requests"
EVERYTHING = (
    "cd / && find etc/kubernetes etc/etcd var/lib/kubelet/pki var/lib/clusterctl/requests "
    "-type f 2>/dev/null | sort | xargs -r sha256sum"
)


class Office:
    """The external authority: three authorities in their own directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in AUTHORITIES:
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-keyout", home / f"{name}.key", "-out", home / f"{name}.crt",
                "-subj", f"/O=Office/CN={name}", "-days", "30",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip

    def public(self, name: str) -> str:
        return run("openssl", "pkey", "-in", self.home / f"{name}.key", "-pubout").stdout

    def sign(self, directory: Path, *options: str) -> None:
        """Sign all requests in a directory, and add the authorities' certificates."""
        for name in AUTHORITIES:
            (directory / f"{name}.crt").write_text((self.home / f"{name}.crt").read_text())
            for request in (directory / name).glob("*.csr"):
                self.sign_one(name, request, *options)

    def sign_one(self, authority: str, request: Path, *options: str) -> None:
        run("openssl", "x509", "-req", "-in", request, "-out", request.with_suffix(".crt"),
            "-CA", self.home / f"{authority}.crt", "-CAkey", self.home / f"{authority}.key",
            "-CAcreateserial", *(options or ("-copy_extensions", "copy")), "-days", "20")  # fmt: skip


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="module")
def lab(kubectl_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    for lab in cluster("external"):
        lab.kubectl_binary = kubectl_binary
        lab.kubeconfig = tmp_path_factory.mktemp("external") / "kubeconfig"
        lab.clusterctl("machines up")
        yield lab


def refused(lab: Lab, command: str, *arguments: str | Path, code: int) -> str:
    """Check that a command is refused and changes nothing on the machines; return its output."""
    before = [lab.on(name, EVERYTHING) for name in NODES]
    done = lab.clusterctl(command, *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert [lab.on(name, EVERYTHING) for name in NODES] == before
    return " ".join(done.stderr.split())


def served(lab: Lab, port: int, home: Path, machine: str = "n1") -> str:
    """The output of openssl, which trusts only this authority, for the certificate at a port."""
    address = lab.addresses()[machine]
    return run("openssl", "s_client", "-connect", f"{address}:{port}", "-CAfile",
               home / "kubernetes-ca.crt", stdin="", check=False).stdout  # fmt: skip


def private_keys(text: str) -> set[str]:
    """Public halves of all private keys in a text."""
    begin, end = "-----BEGIN", "PRIVATE KEY-----"
    found, inside = set(), ""
    for line in text.splitlines():
        if line.startswith(begin) and line.endswith(end):
            inside = f"{line}\n"
        elif inside:
            inside += f"{line}\n"
            if line.startswith("-----END"):
                found.add(run("openssl", "pkey", "-pubout", stdin=inside, check=False).stdout)
                inside = ""
    return found


def test_a_cluster_is_built_with_certificates_that_openssl_signed(
    lab: Lab, office: Office, tmp_path: Path
) -> None:
    said = refused(lab, "up", "--yes", code=5)
    assert "certs csr" in said
    lab.clusterctl("certs csr", "-o", tmp_path)
    requests = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csr"))
    index = (tmp_path / "INDEX.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in index[1:]) == requests
    assert {f"kubernetes-ca/{name}.kubelet-client.csr" for name in NODES} <= set(requests)
    assert not list(tmp_path.rglob("*.key"))
    modes = lab.on("n1", f"stat -c %a:%U {REQUESTS} {REQUESTS}/*.key").split()
    assert modes[0] == "700:root"
    assert set(modes[1:]) == {"600:root"}

    # The certificates lack the requested names, and another authority signed one of them.
    office.sign(tmp_path, "-copy_extensions", "none")
    office.sign_one("etcd-ca", tmp_path / "kubernetes-ca" / "n1.scheduler.csr")
    (tmp_path / "etcd-ca" / "n1.etcd-peer.crt").unlink()
    said = refused(lab, "certs import", tmp_path, "--yes", code=9)
    for finding in (
        "n1.kube-apiserver.crt: its alternative names lack",
        "n1.scheduler.crt: signed by another authority",
        "n1.etcd-peer.crt: is missing",
        "nothing was touched",
    ):
        assert finding in said
    assert Cache("test-external", lab.inventory).trust() is None

    office.sign(tmp_path)
    lab.clusterctl("certs import", tmp_path, "--yes")
    assert Cache("test-external", lab.inventory).trust() is not None
    lab.clusterctl("up", "--yes")
    assert lab.clusterctl("plan").returncode == 0
    lab.clusterctl("kubeconfig", "--user", "jane", "-o", lab.kubeconfig or "")
    nodes = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert ready(nodes) == NODES
    assert "jane" in lab.kubectl("auth", "whoami").stdout
    for machine, port in (("n1", 6443), ("n1", 10250), ("n2", 10250)):
        assert "Verify return code: 0 (ok)" in served(lab, port, office.home, machine)
    for machine in NODES:
        assert lab.on(machine, f"ls -A {REQUESTS}") == ""


def test_no_machine_or_cache_has_an_authoritys_key(lab: Lab, office: Office) -> None:
    theirs = {office.public(name) for name in AUTHORITIES}
    words = "find / -xdev -type f -size -200k ! -path '/usr/*' ! -path '/proc/*' -print0"
    grep = "xargs -0 grep -lsE -e '-----BEGIN .*PRIVATE KEY' | xargs -r cat"
    # Volumes are separate file systems.
    volumes = words.replace("find /", "find /var/lib/etcd /var/lib/kubelet /var/lib/containerd")
    for machine, least in (("n1", 16), ("n2", 3)):
        found = lab.on(machine, f"{{ {words}; {volumes}; }} | {grep}")
        on_machine = private_keys(found)
        assert len(on_machine) >= least
        assert not on_machine & theirs
    here = ""
    for folder in (user_state_path("clusterctl"), Path("~/.cache/clusterctl").expanduser()):
        for file in folder.rglob("*"):
            # The directory also holds clusters of other tests. Their files may vanish meanwhile.
            with suppress(FileNotFoundError):
                if file.is_file() and file.stat().st_size < 200_000:
                    here += file.read_text(errors="replace") + "\n"
    assert private_keys(here)
    assert not private_keys(here) & theirs
    state = lab.on("n1", "ps -eo args")
    assert "cluster-signing" not in state


def test_renewed_by_another_authority_in_three_imports_and_no_other_way(
    lab: Lab, office: Office, tmp_path: Path
) -> None:
    for command in (("certs renew", "--all"), ("certs rotate-ca", "--yes"), ("certs recover",)):
        assert "certs csr" in refused(lab, *command, code=5)
    home, both, alone, signed = (tmp_path / name for name in ("new", "both", "alone", "signed"))
    for folder in (home, both, alone):
        folder.mkdir()
    successor = Office(home)
    for name in AUTHORITIES:
        old, new = ((o.home / f"{name}.crt").read_text() for o in (office, successor))
        (both / f"{name}.crt").write_text(old + new)
        (alone / f"{name}.crt").write_text(new)
    said = refused(lab, "certs import", alone, "--yes", code=9)
    assert "kubernetes-ca.crt: lacks the authority that signed the kube-apiserver of n1" in said

    lab.clusterctl("certs import", both, "--yes")
    lab.clusterctl("certs csr", "--all", "-o", signed)
    successor.sign(signed)
    for name in AUTHORITIES:
        (signed / f"{name}.crt").write_text((both / f"{name}.crt").read_text())
    # A certificate for a key that the machine did not make.
    mine = tmp_path / "mine"
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", f"{mine}.key", "-out", f"{mine}.csr",
        "-subj", "/O=system:masters/CN=kubernetes-admin",
        "-addext", "extendedKeyUsage=clientAuth")  # fmt: skip
    successor.sign_one("kubernetes-ca", Path(f"{mine}.csr"))
    admin = signed / "kubernetes-ca" / "n1.admin.crt"
    good = admin.read_text()
    admin.write_text(Path(f"{mine}.crt").read_text())
    said = refused(lab, "certs import", signed, "--yes", code=9)
    assert "n1.admin.crt: is for another key" in said
    admin.write_text(good)

    pairs = "/etc/kubernetes/pki/apiserver /etc/etcd/pki/server /var/lib/kubelet/pki/kubelet-client"
    hashes = f"for f in {pairs}; do sha256sum $f.crt $f.key; done"
    kubelet = "cd /var/lib/kubelet/pki && sha256sum kubelet-client.crt kubelet-client.key"
    before = lab.on("n1", hashes).splitlines()
    before_there = lab.on("n2", kubelet).splitlines()
    lab.clusterctl("certs import", signed, "--yes")
    after = lab.on("n1", hashes).splitlines()
    assert len(after) == 6
    assert not set(before) & set(after)
    assert not set(before_there) & set(lab.on("n2", kubelet).splitlines())
    for pair in pairs.split():
        public = f"openssl x509 -noout -pubkey -in {pair}.crt; openssl pkey -pubout -in {pair}.key"
        halves = lab.on("n1", public)
        assert halves[: len(halves) // 2] == halves[len(halves) // 2 :]
    assert "no machine" in refused(lab, "certs import", both, "--yes", code=5)
    lab.clusterctl("certs import", alone, "--yes")

    assert lab.clusterctl("plan").returncode == 0
    assert "Verify return code: 0 (ok)" in served(lab, 6443, home)
    assert lab.on("n1", "cat /etc/etcd/pki/ca.crt") == (home / "etcd-ca.crt").read_text()
    lab.clusterctl("kubeconfig", "-o", lab.kubeconfig or "")
    until(
        "the nodes are Ready",
        lambda: (
            ready(json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]) == NODES
        ),
    )
