"""What a machine's certificates are, from what its files say."""

import base64
import os
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest

from provision.commands.certs import listing
from provision.pki import kubeconfig, table
from provision.pki.leaf import issue
from tests.world import NOW, cluster, trust

OF = cluster()
M1 = OF.machine("m1")
APISERVER = issue(table.apiserver(OF, M1), trust(), NOW)
ADMIN = issue(table.admin(OF, M1), trust(), NOW)
CREDENTIALS = kubeconfig.by_certificate(ADMIN.certificate, ADMIN.key)
PKI = "/etc/kubernetes/pki"


def answer(*files, configs=""):
    text = "".join(f"@@ file {path}\n{pem.decode()}" for path, pem in files)
    return text + configs


def test_a_leaf_shows_its_owner_purpose_and_signer():
    (seen,) = listing.parse("m1", answer((f"{PKI}/apiserver.crt", APISERVER.certificate)))

    assert (seen.machine, seen.path) == ("m1", f"{PKI}/apiserver.crt")
    assert (seen.subject, seen.kind) == ("CN=kube-apiserver", "server")
    assert {"kubernetes.default.svc", "m1", "10.77.0.11", "127.0.0.1"} <= set(seen.names)
    assert seen.signed_by == "demo kubernetes-ca"
    assert seen.left(NOW) == timedelta(days=365)


def test_user_and_group_are_in_the_subject():
    (seen,) = listing.parse("m1", answer((f"{PKI}/admin.crt", ADMIN.certificate)))

    assert (seen.subject, seen.kind) == ("O=system:masters, CN=kubernetes-admin", "client")


def test_a_member_of_etcd_is_client_and_server():
    peer = issue(table.etcd_peer(OF, M1), trust(), NOW).certificate

    assert listing.parse("m1", answer(("/etc/etcd/pki/peer.crt", peer)))[0].kind == "client, server"


def test_a_bundle_of_authorities_is_a_row_for_each():
    both = trust().kubernetes.certificate + trust().etcd.certificate

    seen = listing.parse("m1", answer((f"{PKI}/ca.crt", both)))

    assert [(c.kind, c.signed_by) for c in seen] == [
        ("authority", "demo kubernetes-ca"),
        ("authority", "demo etcd-ca"),
    ]


def test_a_kubeconfig_that_names_files_shows_the_client_certificate():
    configs = (
        "@@ config /etc/kubernetes/admin.conf\n"
        f"certificate-authority: {PKI}/ca.crt\nclient-certificate: {PKI}/admin.crt\n"
    )

    seen = listing.parse("m1", answer((f"{PKI}/admin.crt", ADMIN.certificate), configs=configs))

    assert seen[1] == replace(seen[0], path="/etc/kubernetes/admin.conf")


def test_a_kubeconfig_that_holds_certificates_shows_them():
    text = kubeconfig.embedded(
        "https://x", trust().kubernetes.certificate, CREDENTIALS, "u", "c", "c"
    ).decode()
    kept = [line.strip(" -") for line in text.splitlines() if "certificate" in line]

    seen = listing.parse("m1", "@@ config /etc/kubernetes/x.conf\n" + "\n".join(kept))

    assert [c.kind for c in seen] == ["authority", "client"]


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_content_that_is_no_certificate_is_unreadable_and_due(content):
    (seen,) = listing.parse("m1", f"@@ file {PKI}/x.crt\n{content}")

    assert seen.expires is None
    assert seen.left(NOW) == timedelta(0)


def test_a_kubeconfig_whose_file_is_gone_is_unreadable():
    (seen,) = listing.parse(
        "m1", "@@ config /etc/kubernetes/a.conf\nclient-certificate: /gone.crt\n"
    )

    assert seen.expires is None


def test_a_machine_that_printed_nothing_has_none():
    assert listing.parse("w1", "") == ()


def test_the_program_prints_certificates_and_never_a_key(tmp_path):
    kubelet, pki = tmp_path / "var/lib/kubelet/pki", tmp_path / "etc/kubernetes/pki"
    kubelet.mkdir(parents=True)
    pki.mkdir(parents=True)
    (kubelet / "kubelet-client-2026-01-01.pem").write_bytes(ADMIN.certificate + ADMIN.key)
    (kubelet / "kubelet-client-current.pem").symlink_to("kubelet-client-2026-01-01.pem")
    (pki / "apiserver.crt").write_bytes(APISERVER.certificate)
    (pki / "apiserver.key").write_bytes(APISERVER.key)
    token = base64.b64encode(b"secret").decode()
    config = kubeconfig.embedded(
        "https://x", trust().kubernetes.certificate, CREDENTIALS, "u", "c", "c"
    )
    (pki.parent / "admin.conf").write_bytes(config + f"# token: {token}\n".encode())
    program = listing.program().replace("/etc/", f"{tmp_path}/etc/")
    program = program.replace("/var/lib/", f"{tmp_path}/var/lib/")

    done = subprocess.run(
        ["sh"], input=program, capture_output=True, text=True, check=True, env={**os.environ}
    )

    assert "PRIVATE" not in done.stdout
    assert token not in done.stdout
    assert base64.b64encode(ADMIN.key).decode() not in done.stdout
    seen = listing.parse("m1", done.stdout)
    assert [(c.path.removeprefix(str(tmp_path)), c.kind) for c in seen] == [
        (f"{PKI}/apiserver.crt", "server"),
        ("/var/lib/kubelet/pki/kubelet-client-current.pem", "client"),
        ("/etc/kubernetes/admin.conf", "authority"),
        ("/etc/kubernetes/admin.conf", "client"),
    ]
