"""What masters approve of what nodes ask for: the very program, run here."""

import base64
import os
import socket
import subprocess
import time
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from provision.desired.components.certificates import CERTIFICATES, PROGRAM
from provision.model.settings.ec2 import Ec2
from provision.pki.leaf import Authority, Leaf, Usage, issue
from provision.pki.trust import Trust
from tests.world import DEFAULT, LAB, cluster, master, worker

CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
JOINING = '["system:bootstrappers","system:bootstrappers:clusterctl-group"]'
OF_UP = '["system:bootstrappers","system:bootstrappers:clusterctl"]'
NODES = '["system:nodes"]'
KUBECTL = """#!/bin/sh
case "$*" in
*"get certificatesigningrequests"*) cat {root}/requests ;;
*"get node i-2"*) echo node/i-2 ;;
*"certificate "*) echo "$4" >>{root}/verdicts ;;
esac
"""
# i-2 has a Node already, i-3 is gone.
INSTANCES = """\
i-1 running 10.0.0.7 false
i-2 running 10.0.0.8 false
i-3 terminated - -
"""


# What kubelet 1.36.3 has sent.
OF_KUBELET = """\
-----BEGIN CERTIFICATE REQUEST-----
MIHtMIGTAgEAMDExFTATBgNVBAoTDHN5c3RlbTpub2RlczEYMBYGA1UEAxMPc3lz
dGVtOm5vZGU6aS0xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECeD3Xi/Xo2wD
dg5o27tu0Q9nq6rqgAWTGPgW8tOmNa5MtZIPnw5PC1unbz1WeBARDhLo+/QqVZoK
D6RgWKVcm6AAMAoGCCqGSM49BAMCA0kAMEYCIQC/9nPEGZpVetPijbMmszv22tPl
mX/GYUXTg+yP4Z3GlgIhAK0BUndhoMKjPpu3tbG0oG+Z7L1zmXqRHJwrG6bqwZ9u
-----END CERTIFICATE REQUEST-----
"""
TRUST = Trust.create("demo", datetime.now(UTC))


def subject_of(name, organization="system:nodes"):
    parts = [(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    parts.append((NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def request(name, organization="system:nodes", dns=(), addresses=()):
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(subject_of(name, organization))
    if dns or addresses:
        names = [*map(x509.DNSName, dns), *(x509.IPAddress(ip_address(a)) for a in addresses)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return base64.b64encode(pem.public_bytes(Encoding.PEM)).decode()


def joining(name, groups=JOINING, usages='["digital signature","client auth"]', **asked):
    text = request(f"system:node:{name}", **asked)
    return ("node-csr-x", CLIENT, "system:bootstrap:abcdef", text, usages, groups, "")


def as_text(line, text):
    """The same, with this request."""
    return (*line[:3], base64.b64encode(text.encode()).decode(), *line[4:])


def serving(name, address, user=None, dns=None):
    text = request(f"system:node:{name}", dns=(dns or name,), addresses=(address,))
    usages = '["digital signature","server auth"]'
    return ("clusterctl-x", SERVING, f"system:node:{user or name}", text, usages, NODES, "")


def approver(tmp_path, of, port=10250):
    """What a master of this cluster says to one request; nothing where it leaves it alone."""
    state = CERTIFICATES.state(of, of.machine("m1"), TRUST, LAB)
    (file,) = (file for file in state.files if file.path == PROGRAM)
    fake = tmp_path / "kubectl"
    fake.write_text(KUBECTL.format(root=tmp_path))
    fake.chmod(0o755)
    program = file.content.decode()
    program = program.replace("/usr/local/bin/kubectl", str(fake))
    program = program.replace("/run/clusterctl-group/instances", f"{tmp_path}/instances")
    program = program.replace("state=/var/lib/clusterctl\n", f"state={tmp_path}\n")
    program = program.replace("\npki=/etc/kubernetes/pki\n", f"\npki={tmp_path}\n")
    program = program.replace('"$address:10250"', f'"$address:{port}"')
    (tmp_path / "ca.crt").write_bytes(TRUST.kubernetes.certificate)
    listed = tmp_path / "instances"
    listed.write_text(INSTANCES)

    def ask(line, old=0):
        was = listed.stat().st_ctime - old
        os.utime(listed, (was, was))
        (tmp_path / "requests").write_text("\t".join(line) + "\n")
        subprocess.run(["sh", "-c", program, "certs", "approve"], check=True)
        verdicts = tmp_path / "verdicts"
        return verdicts.read_text().strip() if verdicts.exists() else ""

    return ask


@pytest.fixture
def verdict(tmp_path):
    """What a master says of a cluster with an Auto Scaling group."""
    return approver(
        tmp_path,
        cluster(master("m1"), worker("w1"), source="ec2", ec2=Ec2(region="r", bucket="b", group=2)),
    )


@pytest.fixture
def of_kubelet(tmp_path):
    """What a master says while the kubelet of w1, here, shows the certificate that it has."""
    leaf = Leaf(
        "kubelet-serving",
        Authority.KUBERNETES,
        "system:node:w1",
        frozenset({Usage.SERVER}),
        "",
        "",
        organizations=("system:nodes",),
        dns=("w1",),
        addresses=("127.0.0.1",),
    )
    issued = issue(leaf, TRUST, datetime.now(UTC))
    (tmp_path / "shown.crt").write_bytes(issued.certificate)
    (tmp_path / "shown.key").write_bytes(issued.key)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}",
         "-cert", tmp_path / "shown.crt", "-key", tmp_path / "shown.key"],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield approver(tmp_path, DEFAULT, port)
    server.kill()
    server.communicate()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (joining("i-1"), "approve"),
        (as_text(joining("i-1"), OF_KUBELET), "approve"),
        (joining("i-2"), "deny"),  # its Node is there
        (joining("i-3"), ""),
        (joining("i-9"), ""),
        (joining("m1"), "deny"),
        (joining("i-1", groups=OF_UP), ""),  # Kubernetes' own business
        (joining("i-1", organization="system:masters"), "deny"),
        (joining("i-1", organization=""), "deny"),
        (joining("i-1", dns=("i-1",)), "deny"),
        (joining("i-1", usages='["digital signature","server auth"]'), "deny"),
        (serving("i-1", "10.0.0.7"), "approve"),
        (serving("i-2", "10.0.0.8"), "approve"),
        (serving("i-1", "10.0.0.8"), "deny"),
        (serving("i-1", "10.0.0.7", dns="m1"), "deny"),
        (serving("i-1", "10.0.0.7", user="i-2"), "deny"),
        (serving("i-9", "10.0.0.9"), ""),
    ],
    ids=lambda value: None if isinstance(value, str) else value[2],
)
def test_only_what_ec2_says_of_an_instance_is_approved(verdict, line, said):
    assert verdict(line) == said


@pytest.mark.parametrize("line", [joining("i-1"), serving("i-1", "10.0.0.7")])
def test_an_old_answer_of_ec2_does_not_count(verdict, line):
    assert verdict(line, old=300) == ""


# What openssl and Kubernetes read in different ways


def tlv(tag, *parts, padded=False):
    """DER; `padded`: its length in more bytes than it needs, which is BER only."""
    body = b"".join(parts)
    if len(body) < 0x80 and not padded:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes(2 if len(body) > 0xFF else 1)
    return bytes([tag, 0x80 | len(length)]) + length + body


EXTENSIONS, SAN = bytes.fromhex("06092a864886f70d01090e"), bytes.fromhex("0603551d11")
EVIL = ("kubernetes", "kubernetes.default.svc", "10.96.0.1")


def general(name):
    return tlv(0x87, ip_address(name).packed) if name[0].isdigit() else tlv(0x82, name.encode())


def named(*names):
    """The extension with these names; bytes are taken as they are."""
    each = [name if isinstance(name, bytes) else general(name) for name in names]
    return tlv(0x30, SAN, tlv(0x04, tlv(0x30, *each)))


def asked(*extensions, padded=False):
    return tlv(0x30, EXTENSIONS, tlv(0x31, tlv(0x30, *extensions), padded=padded))


def pem(of, *attributes):
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = tlv(
        0x30, b"\2\1\0", subject_of(f"system:node:{of}").public_bytes(), public,
        tlv(0xA0, *attributes),
    )  # fmt: skip
    signature = key.sign(content, ec.ECDSA(SHA256()))
    by = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    text = base64.b64encode(tlv(0x30, content, by, tlv(0x03, b"\0", signature))).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    begin, end = (f"-----{word} CERTIFICATE REQUEST-----" for word in ("BEGIN", "END"))
    return "\n".join((begin, *lines, end, ""))


def plain(name, address):
    return pem(name, asked(named(name, address)))


AMBIGUOUS = {
    "a second list, the first not DER": lambda name, address: pem(
        name, asked(named(name, address), padded=True), asked(named(*EVIL))
    ),
    "a second list": lambda name, address: pem(
        name, asked(named(name, address)), asked(named(*EVIL))
    ),
    "not DER": lambda name, address: pem(name, asked(named(name, address), padded=True)),
    "a line's end in a name, others after it": lambda name, address: pem(
        name, asked(named(f"{name}, IP Address:{address}\n", *EVIL))
    ),
    "a comma in a name": lambda name, address: pem(
        name, asked(named(f"{name}, IP Address:{address}"))
    ),
    "a blank in a name": lambda name, address: pem(name, asked(named(f" {name}", address))),
    "a zero in a name": lambda name, address: pem(name, asked(named(f"{name}\0.x", address))),
    "names twice": lambda name, address: pem(name, asked(named(name, address), named(*EVIL))),
    "a name of another kind": lambda name, address: pem(
        name, asked(named(name, address, tlv(0x88, bytes.fromhex("2a0304"))))
    ),
    "a URI": lambda name, address: pem(
        name, asked(named(name, address, tlv(0x86, b"https://kubernetes")))
    ),
    "mail": lambda name, address: pem(name, asked(named(name, address, tlv(0x81, b"a@b")))),
    "another extension": lambda name, address: pem(
        name,
        asked(
            named(name, address),
            tlv(0x30, bytes.fromhex("0603551d130101ff"), tlv(0x04, bytes.fromhex("30030101ff"))),
        ),
    ),
    "another attribute": lambda name, address: pem(
        name,
        asked(named(name, address)),
        tlv(0x30, bytes.fromhex("06092a864886f70d010907"), tlv(0x31, tlv(0x0C, b"x"))),
    ),
    "a second request": lambda name, address: plain(name, address) + pem(name, asked(named(*EVIL))),
    "text before it": lambda name, address: "x\n" + plain(name, address),
}


def serving_by(made, name, address):
    return as_text(serving(name, address), made(name, address))


@pytest.mark.parametrize("made", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_of_an_instance_is_denied(verdict, made):
    assert verdict(serving_by(made, "i-1", "10.0.0.7")) == "deny"


@pytest.mark.parametrize("made", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_of_a_node_is_denied(of_kubelet, made):
    assert of_kubelet(serving_by(made, "w1", "127.0.0.1")) == "deny"


def test_a_node_gets_what_its_kubelet_shows_already_and_nothing_else(of_kubelet):
    assert of_kubelet(serving("w1", "127.0.0.1", dns="kubernetes")) == "deny"


def test_an_unambiguous_request_is_approved(of_kubelet):
    assert of_kubelet(serving_by(plain, "w1", "127.0.0.1")) == "approve"


def test_a_request_that_its_key_has_not_signed_is_denied(verdict):
    der = bytearray(x509.load_pem_x509_csr(OF_KUBELET.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    assert verdict(as_text(joining("i-1"), forged.decode())) == "deny"


def test_a_request_for_the_shared_identity_is_approved_only_unchanged_and_without_names(
    verdict, tmp_path
):
    usages = '["digital signature","client auth"]'

    def line(**names):
        text = request("clusterctl:probe", organization="", **names)
        signer = "kubernetes.io/kube-apiserver-client"
        return ("clusterctl-x", signer, "system:node:i-1", text, usages, NODES, "")

    assert verdict(line()) == "approve"
    (tmp_path / "verdicts").unlink()
    assert verdict(line(dns=("kubernetes",))) == "deny"
