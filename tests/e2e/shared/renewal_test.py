"""Machines renew their certificates by themselves, and report it if they cannot."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.e2e.conftest import Lab, run, until
from tests.e2e.sample import long

pytestmark = pytest.mark.e2e

PKI = "/etc/kubernetes/pki"
METRICS = "/var/lib/node_exporter/textfile_collector/clusterctl-certs.prom"
FIND = (
    f"find {PKI} /etc/etcd/pki /var/lib/kubelet/pki -name '*.crt' ! -name ca.crt "
    "! -name '*-ca.crt' 2>/dev/null | sort"
)
SHOW = f"""
for f in $({FIND}); do
    key=${{f%.crt}}.key; [ -e $key ] || key=$f.key
    echo "$f|$(openssl x509 -noout -enddate -in $f | sed 's/.*=//' | date -f - +%s)|$(
        openssl x509 -noout -subject -ext subjectAltName,extendedKeyUsage -in $f 2>&1 |
        tr -d '\\n')|$(sha256sum <$key)|$(openssl x509 -noout -pubkey -in $f | sha256sum)|$(
        openssl pkey -pubout -in $key | sha256sum)|$(stat -c '%a %U:%G' $key)"
done"""


@dataclass(frozen=True)
class Shown:
    """A leaf certificate on a machine, as openssl shows it."""

    days_left: float
    says: str
    key: str


def leaves(lab: Lab, machine: str) -> dict[str, Shown]:
    found = {}
    for line in lab.on(machine, SHOW).splitlines():
        path, end, says, key, public, of_key, access = line.split("|")
        assert public == of_key, path
        owner = "etcd" if path.startswith("/etc/etcd") else "root"
        assert access == f"600 {owner}:{owner}", path
        left = datetime.fromtimestamp(int(end), UTC) - datetime.now(UTC)
        found[path] = Shown(left / timedelta(days=1), says, key)
    return found


def make_old(lab: Lab, machine: str, days_left: float, which: str = FIND) -> None:
    """Sign the leaf certificates of a machine again, so that they expire in `days_left` days."""
    authorities = []
    for stem in ("ca", "etcd/ca", "front-proxy-ca"):
        certificate, _, key = lab.on(
            "m1", f"cd {PKI}; cat {stem}.crt; echo =; cat {stem}.key"
        ).partition("\n=\n")
        authorities.append(
            (
                x509.load_pem_x509_certificate(certificate.encode()),
                load_pem_private_key(key.encode(), None),
            )
        )
    start = datetime.now(UTC) - timedelta(days=365 - days_left)
    there = lab.on(machine, f"for f in $({which}); do echo $f; cat $f; echo =; done")
    script = ""
    for entry in there.split("\n=\n")[:-1]:
        path, _, pem = entry.partition("\n")
        old = x509.load_pem_x509_certificate(pem.encode())
        (key,) = (key for authority, key in authorities if old.issuer == authority.subject)
        assert isinstance(key, EllipticCurvePrivateKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(old.subject)
            .issuer_name(old.issuer)
            .public_key(old.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=365))
        )
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        new = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
        script += f"printf %s '{new}' >{path}\n"
    lab.on(machine, script)


def shown(lab: Lab, machine: str, port: int) -> str:
    """The serial number of the certificate at a machine's port."""
    address = lab.addresses()[machine]
    text = run("openssl", "s_client", "-connect", f"{address}:{port}", stdin="", check=False).stdout
    return run("openssl", "x509", "-noout", "-serial", stdin=text, check=False).stdout


def serial(lab: Lab, machine: str, path: str) -> str:
    return lab.on(machine, f"openssl x509 -noout -serial -in {path}")


@dataclass(frozen=True)
class Renewed:
    """The certificates of m1 and w1 before and after their timers' services ran.

    Attributes:
        answered: (machine, port) of SHOWN -> serial number of the certificate shown before.
    """

    before: dict[str, dict[str, Shown]]
    after: dict[str, dict[str, Shown]]
    answered: dict[tuple[str, int], str]


# (machine, port, path of the certificate that the port shows).
SHOWN = (
    ("m1", 6443, f"{PKI}/apiserver.crt"),
    ("m1", 5000, f"{PKI}/registry.crt"),
    ("m1", 2379, "/etc/etcd/pki/server.crt"),
    ("w1", 10250, "/var/lib/kubelet/pki/kubelet.crt"),
)


@pytest.fixture(scope="module")
def renewed(ha: Lab) -> Renewed:
    """Make all certificates of two machines old, and run the timers' services there."""
    for machine in ("m1", "w1"):
        make_old(ha, machine, 60)
    before = {machine: leaves(ha, machine) for machine in ("m1", "w1")}
    answered = {(machine, port): shown(ha, machine, port) for machine, port, _ in SHOWN}

    with ThreadPoolExecutor() as pool:
        command = "systemctl start clusterctl-certs"
        timers = [pool.submit(ha.ssh, machine, command) for machine in before]

        def done() -> bool:
            # Any master can approve. Without this call, each master looks every five minutes.
            ha.on("m2", "systemctl start clusterctl-certs-approve", check=False)
            return all(timer.done() for timer in timers)

        until("both have done", done, 180)
        for timer in timers:
            timer.result()
    return Renewed(before, {machine: leaves(ha, machine) for machine in before}, answered)


def test_a_cluster_renews_its_due_certificates_without_an_operator(
    ha: Lab, renewed: Renewed
) -> None:
    for machine, old in renewed.before.items():
        assert all(leaf.days_left < 61 for leaf in old.values())
        new = renewed.after[machine]
        assert new.keys() == old.keys()
        for path, leaf in new.items():
            assert leaf.days_left > 364, path
            assert leaf.says == old[path].says
            assert leaf.key != old[path].key
        metrics = ha.on(machine, f"cat {METRICS}")
        assert all(f'filepath="{path}"' in metrics for path in new)
    assert ha.clusterctl("plan").returncode == 0
    assert ha.clusterctl("status", check=False).returncode == 0


def test_a_node_gets_certificates_only_for_its_own_name_and_addresses(ha: Lab) -> None:
    other = ha.addresses()["w2"]
    wanted = (
        ("kubelet-serving", "server auth", "/O=system:nodes/CN=system:node:w1", f"DNS:w1,IP:{other}"),
        ("kube-apiserver-client", "client auth", "/CN=kubernetes-admin", "DNS:w1"),
        ("kube-apiserver-client", "client auth", "/CN=kubernetes-admin", ""),
    )  # fmt: skip
    program = "set -e; d=$(mktemp -d); cd $d; openssl ecparam -name prime256v1 -genkey -out k\n"
    for signer, usage, subject, names in wanted:
        extension = f"-addext subjectAltName={names}" if names else ""
        program += f"""
            openssl req -new -key k -subj {subject} {extension} -out r
            printf '{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest",\
                "metadata":{{"generateName":"clusterctl-w1-"}},"spec":{{\
                "signerName":"kubernetes.io/{signer}","usages":["digital signature","{usage}"],\
                "request":"%s"}}}}' $(base64 -w0 r) |
            curl -sS --fail --cacert {PKI}/ca.crt -E /var/lib/kubelet/pki/kubelet-client-current.pem \
                -H 'Content-Type: application/json' --data-binary @- -o /dev/null -w '%{{http_code}}\n' \
                https://127.0.0.1:7443/apis/certificates.k8s.io/v1/certificatesigningrequests
        """
    assert ha.on("w1", f"{program}\nrm -r $d").split() == ["201", "201", "201"]

    ha.on("m1", "systemctl start clusterctl-certs-approve")

    listed = json.loads(ha.kubectl("get", "csr", "-o", "json").stdout)["items"]
    verdicts = {
        r["metadata"]["name"]: r["status"].get("conditions", [{}])[0].get("type")
        for r in listed
        if r["metadata"]["name"].startswith("clusterctl-w1-") and "certificate" not in r["status"]
    }
    assert list(verdicts.values()) == ["Denied"] * 3
    ha.kubectl("delete", "csr", *verdicts)


def test_a_failed_renewal_is_in_the_journal_and_in_an_event(ha: Lab) -> None:
    path = "/etc/etcd/pki/peer.crt"
    make_old(ha, "m3", 59.5, f"echo {path}")
    key = f"{PKI}/etcd/ca.key"
    ha.on("m3", f"mv {key} {key}.away")
    try:
        ended = ha.on("m3", "systemctl start clusterctl-certs; echo $?")
        assert ended == "1\n"
        said = ha.on("m3", "journalctl -u clusterctl-certs -p warning -o cat --no-pager")
        assert f"{path} has 59 days left and could not be renewed" in said
        events = ha.kubectl(
            "get", "events", "--field-selector",
            "reason=CertificateExpiring,involvedObject.name=m3", "-o", "jsonpath={.items[*].message}",
        ).stdout  # fmt: skip
        assert path in events
    finally:
        ha.on("m3", f"mv {key}.away {key}")
    ha.on("m3", "systemctl start clusterctl-certs")
    assert leaves(ha, "m3")[path].days_left > 364
    assert ha.clusterctl("plan").returncode == 0


@long(70)
def test_each_server_presents_its_renewed_certificate(ha: Lab, renewed: Renewed) -> None:
    """This test is at the end: apiservers and kubelets look for a new certificate once a minute."""
    for machine, port, path in SHOWN:
        until(
            f"{machine} shows its new {path}",
            lambda m=machine, o=port, p=path: shown(ha, m, o) == serial(ha, m, p),
            180,
        )
        assert shown(ha, machine, port) != renewed.answered[machine, port]
