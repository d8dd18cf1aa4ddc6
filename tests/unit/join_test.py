"""What a worker that joins alone is given."""

import base64
import io
import os
import re
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from provision.apply import install, self_join
from provision.apply.change import ComponentChange
from provision.artifacts.model import ArtifactSet
from provision.desired.model import HostFile
from provision.model.settings.ec2 import Ec2
from provision.pki.authority import Authority
from tests.world import PLAIN, RHEL, artifacts, cluster, master, trust, worker

CLUSTER = cluster(
    master("m1"), master("m2"), worker("w1"),
    source="ec2", ec2=Ec2(region="eu-central-1", group=2, bucket="b"),
)  # fmt: skip


def bundle(of=CLUSTER, facts=PLAIN, source=None):
    return self_join.bundle(of, trust(), facts, source or artifacts(of))


def payloads(program):
    """Component -> name of a file -> its content."""
    found = {}
    for name, text in re.findall(
        r'say "([a-z-]+)"\nsh -c "\$bring" <<\'END-OF-COMPONENT\'\n(.*?)END-OF-COMPONENT',
        program.decode(),
        re.DOTALL,
    ):
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as tar:
            found[name] = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    return found


@pytest.mark.parametrize("facts", [PLAIN, RHEL], ids=["debian", "rhel"])
def test_the_join_program_is_bash_and_has_everything_of_a_worker(facts):
    made = bundle(facts=facts)
    checked = subprocess.run(["bash", "-n"], input=made.program, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert list(payloads(made.program)) == [
        "host", "containerd", "haproxy", "pod-network", "certificates", "kubelet", "kube-proxy",
    ]  # fmt: skip


def test_the_same_cluster_gives_the_same_program():
    assert bundle() == bundle()
    other = cluster(
        master("m1"), worker("w1"), source="ec2", ec2=CLUSTER.ec2,
    )  # fmt: skip
    assert bundle(other).sha256 != bundle().sha256


def test_the_workers_proxy_knows_all_masters():
    files = b"".join(payloads(bundle().program)["haproxy"].values())
    for machine in CLUSTER.masters:
        assert f"server {machine.name} {machine.address}:6443".encode() in files


def test_no_secret_of_the_cluster_is_in_it():
    program = bundle().program
    everything = program + b"".join(
        content for files in payloads(program).values() for content in files.values()
    )
    assert b"PRIVATE KEY" not in everything
    assert trust().bundle(Authority.KUBERNETES) in everything
    for secret in (trust().encryption_key, trust().network_key):
        assert secret.encode() not in everything


def test_no_argument_list_has_the_program_in_which_a_proxys_password_may_be():
    (line,) = (li for li in bundle().program.decode().splitlines() if '"$take"' in li)
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "take": "cat /proc/$$/cmdline # hunter2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("bash\0-c")
    assert "hunter2" not in done.stdout


def test_the_join_program_fetches_only_what_it_cannot_download(tmp_path):
    plain = artifacts(CLUSTER)
    file = tmp_path / "kubelet"
    file.write_bytes(b"kubelet")
    items = {
        key: replace(ready, local=file)
        if ready.name in {"kubernetes/kubelet", "etcd/etcd"}
        else replace(ready, url="https://example.org/it")
        for key, ready in plain.items.items()
    }
    made = bundle(source=ArtifactSet("build", items))
    assert [ready.name for ready in made.artifacts] == ["kubernetes/kubelet"]
    assert f"for pin in {made.artifacts[0].pin}; do".encode() in made.program


def test_the_join_program_fills_in_its_machines_name_and_address(tmp_path):
    path = tmp_path / "file"
    content = f"{self_join.NAME} has {self_join.ADDRESS}, and is {self_join.NAME}; not 192x0y2z1\n".encode()
    change = ComponentChange("x", files=(HostFile(str(path), content, 0o644),))
    if os.geteuid():
        pytest.skip("files are root's")
    done = subprocess.run(
        ["sh", "-c", install.command(str(tmp_path / "state"), prepare=self_join._FILL)],
        input=install.payload((change,), str(tmp_path / "record")),
        env={**os.environ, "name": "i-1", "address": "10.0.0.7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text() == "i-1 has 10.0.0.7, and is i-1; not 192x0y2z1\n"


def test_until_a_master_approves_better_ones_it_has_certificates_that_it_signed_itself(tmp_path):
    """And they ask for what the table of certificates says."""
    program = bundle().program.decode()
    function = program[program.index("provisional() {") : program.index("\nbring=")]
    calls = [line for line in program.splitlines() if line.startswith("provisional /")]
    moved = [re.sub(r"(?<= )/(?=etc|var)", f"{tmp_path}/", call) for call in calls]
    script = "\n".join(("set -euo pipefail", function, *moved))
    subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "name": "i-1", "address": "10.0.0.7", "work": str(tmp_path)},
        check=True,
    )
    shown = {
        shlex.split(call)[1]: subprocess.run(
            ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", "-ext",
             "subjectAltName,extendedKeyUsage", "-in", f"{tmp_path}{shlex.split(call)[1]}"],
            capture_output=True, text=True, check=True,
        ).stdout
        for call in calls
    }  # fmt: skip
    kubelet = shown["/var/lib/kubelet/pki/kubelet.crt"]
    assert "CN=system:node:i-1,O=system:nodes" in kubelet
    assert "DNS:i-1, IP Address:10.0.0.7" in kubelet
    assert "TLS Web Server Authentication" in kubelet
    probe = shown["/etc/kubernetes/pki/proxy-probe.crt"]
    assert "CN=clusterctl:probe" in probe
    assert "TLS Web Client Authentication" in probe
    assert (tmp_path / "etc/kubernetes/pki/proxy-probe.crt.key").exists()
    assert Path(f"{tmp_path}/etc/kubernetes/pki/registry-client.key").exists()
