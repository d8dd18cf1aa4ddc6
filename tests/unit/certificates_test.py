"""The program by which machines renew certificates, run here on files as a machine has them."""

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provision.desired.catalog import COMPONENTS, desired
from provision.desired.components import certificates
from provision.desired.digests import certificate_hash, reads, unit_digest
from provision.model import paths
from provision.model.cluster import Role
from provision.model.settings.security import Certificates
from provision.pki.leaf import issue, issued_at, problem
from provision.pki.trust import Trust
from tests.world import DEFAULT, PLAIN, cluster, machine, master, trust, worker

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("openssl"), reason="it runs as root, with openssl"
)
NOW = datetime.now(UTC).replace(microsecond=0)
TRUST = Trust.create("demo", NOW - timedelta(days=400))
SEPARATE = cluster(master("m1"), machine("e1", Role.ETCD), worker("w1"))
PREFIXES = ("/etc/kubernetes", "/etc/etcd", "/var/lib", "/run", "/usr/local", "/etc/clusterctl",
            "/etc/systemd")  # fmt: skip


class Disk:
    """Below a directory: what a machine of a cluster has, its certificates of a given age."""

    def __init__(self, root, of, name, age_days, trusted=TRUST):
        self.root, self.log = root, root / "systemctl"
        self.states = desired(of, of.machine(name), TRUST, PLAIN)
        # Keys and certificates of authorities are files of the components.
        for state in self.states.values():
            for file in state.files:
                self.write(file.path, file.content, file.mode)
            for leaf in state.leaves:
                issued = issue(leaf, trusted, NOW - timedelta(days=age_days))
                self.write(leaf.cert_path, issued.certificate, 0o644)
                self.write(leaf.key_path, issued.key, 0o600)
            self.write(f"{paths.RECORD}/{state.name}", self._record(state).encode(), 0o644)
        pins = "".join(f"binary\t{self.at(p)}\t{pin}\t1\n" for p, pin in self.pins().items())
        self.write(f"{paths.RECORD}/artifacts", pins.encode(), 0o644)
        fake = root / "bin" / "systemctl"
        fake.parent.mkdir()
        fake.write_text(f'#!/bin/sh\necho "$@" >>{self.log}\n')
        fake.chmod(0o755)
        program = self.states["certificates"].files[0].content.decode()
        program = self._moved(program).replace("PATH=/", f"PATH={fake.parent}:/", 1)
        self.program = root / "program"
        self.program.write_text(program)

    def _moved(self, text):
        return re.sub(rf"(?<![\w/])({'|'.join(PREFIXES)})(?=[/\s\"]|$)", rf"{self.root}\1", text)

    def at(self, path):
        return f"{self.root}{path}"

    def write(self, path, content, mode):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)

    def read(self, path):
        return (self.root / path.lstrip("/")).read_bytes()

    def pins(self):
        return {b.path: f"pin of {b.artifact}" for s in self.states.values() for b in s.binaries}

    def _record(self, state):
        lines = [f"file\t{self.at(f.path)}" for f in state.files]
        for leaf in state.leaves:
            key = hashlib.sha256(self.read(leaf.key_path)).hexdigest()
            lines += [f"cert\t{self.at(leaf.cert_path)}", f"key\t{self.at(leaf.key_path)}\t{key}"]
        lines += [f"unit\t{unit.name}\tbefore" for unit in state.units]
        return "".join(f"{line}\n" for line in lines)

    @property
    def leaves(self):
        return [leaf for state in self.states.values() for leaf in state.leaves]

    def pem(self, leaf):
        return self.read(leaf.cert_path).decode()

    def recorded(self, component, kind):
        lines = self.read(f"{paths.RECORD}/{component}").decode().splitlines()
        return {x.split("\t")[1]: x.split("\t")[2] for x in lines if x.startswith(f"{kind}\t")}

    def digest(self, component, name):
        """What the plan takes for the digest of what is there now."""
        state = self.states[component]
        (unit,) = (u for u in state.units if u.name == name)
        hashes = {}
        for path in reads(unit, state):
            content = None if path in self.pins() else self.read(path)
            is_leaf = path in {leaf.cert_path for leaf in state.leaves}
            hashes[path] = (
                self.pins()[path]
                if content is None
                else certificate_hash(content.decode())
                if is_leaf
                else hashlib.sha256(content).hexdigest()
            )
        lines = "".join(f"{self.at(p)}\t{hashes[p]}\n" for p in sorted(reads(unit, state)))
        assert unit_digest(unit, state, hashes) != ""
        return hashlib.sha256(lines.encode()).hexdigest()

    def renew(self):
        return subprocess.run(
            ["sh", self.program, "renew"], capture_output=True, text=True, check=False
        )

    @property
    def reloaded(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.mark.parametrize(
    ("of", "name"), [(DEFAULT, "m1"), (SEPARATE, "e1")], ids=["master", "member"]
)
def test_due_certificates_are_renewed_as_the_plan_wants_them(tmp_path, of, name):
    disk = Disk(tmp_path, of, name, age_days=300)
    before = {leaf.key_path: disk.read(leaf.key_path) for leaf in disk.leaves}

    done = disk.renew()

    assert (done.returncode, done.stderr) == (0, "")
    assert disk.leaves
    for state in disk.states.values():
        for leaf in state.leaves:
            assert problem(leaf, disk.pem(leaf), TRUST, datetime.now(UTC)) is None
            certificate = x509.load_pem_x509_certificate(disk.pem(leaf).encode())
            key = disk.read(leaf.key_path)
            assert key != before[leaf.key_path]
            loaded = load_pem_private_key(key, None)
            assert loaded.public_key() == certificate.public_key()
            assert disk.recorded(state.name, "key")[disk.at(leaf.key_path)] == (
                hashlib.sha256(key).hexdigest()
            )
            assert (tmp_path / leaf.key_path[1:]).stat().st_mode & 0o777 == 0o600
            assert (tmp_path / leaf.cert_path[1:]).stat().st_mode & 0o777 == 0o644
            assert issued_at(disk.pem(leaf)) >= NOW
            life = certificate.not_valid_after_utc - issued_at(disk.pem(leaf))
            assert life == timedelta(days=365)
    # Units that read a certificate only at a reload are reloaded, and the record has the new digest.
    reloaded = certificates.RELOADED if of is DEFAULT else ()
    assert disk.reloaded == [
        f"--quiet {verb} clusterctl-{component.name}.service"
        for component, verb in zip(reloaded, ("try-restart", "try-reload-or-restart"), strict=False)
    ]
    for component in reloaded:
        unit = f"clusterctl-{component.name}.service"
        assert disk.recorded(component.name, "unit")[unit] == disk.digest(component.name, unit)


def test_certificates_with_a_third_of_their_life_left_are_left_alone(tmp_path):
    disk = Disk(tmp_path, SEPARATE, "e1", age_days=240)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.[ck][re][ty]")}
    done = disk.renew()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.[ck][re][ty]")} == before
    assert disk.reloaded == []


def test_a_key_that_is_not_the_certificates_is_replaced_with_it(tmp_path):
    disk = Disk(tmp_path, SEPARATE, "e1", age_days=0)
    (leaf,) = (leaf for leaf in disk.leaves if leaf.name == "etcd-peer")
    old = disk.pem(leaf)
    disk.write(leaf.key_path, issue(leaf, TRUST, NOW).key, 0o600)
    assert disk.renew().returncode == 0
    assert disk.pem(leaf) != old
    assert problem(leaf, disk.pem(leaf), TRUST, datetime.now(UTC)) is None


def test_the_next_run_reloads_units_that_a_killed_run_did_not_reload(tmp_path):
    disk = Disk(tmp_path, DEFAULT, "w1", age_days=0)
    record = disk.read(f"{paths.RECORD}/haproxy").replace(b"\tbefore", b"\trenewed")
    disk.write(f"{paths.RECORD}/haproxy", record, 0o644)
    disk.renew()
    assert disk.reloaded == ["--quiet try-reload-or-restart clusterctl-haproxy.service"]


def test_certificates_of_another_authority_are_left_for_the_operator_with_a_warning(tmp_path):
    disk = Disk(tmp_path, SEPARATE, "e1", age_days=300, trusted=trust())
    before = [disk.pem(leaf) for leaf in disk.leaves]
    done = disk.renew()
    assert done.returncode == 1
    warnings = [line for line in done.stdout.splitlines() if line.startswith("<4>")]
    assert len(warnings) == len(disk.leaves)
    assert re.search(r"peer.crt has \d+ days left and could not be renewed: ", done.stdout)
    assert [disk.pem(leaf) for leaf in disk.leaves] == before


def test_with_an_external_authority_the_warning_names_the_commands_and_nothing_is_touched(tmp_path):
    of = cluster(master("m1"), worker("w1"), certificates=Certificates(authority="external"))
    disk = Disk(tmp_path, of, "w1", age_days=300)
    before = [disk.pem(leaf) for leaf in disk.leaves]
    done = disk.renew()
    assert done.returncode == 0
    warnings = [x for x in done.stdout.splitlines() if "certs csr, certs import" in x]
    assert len(warnings) == len(disk.leaves)
    assert all(line.startswith("<4>") for line in warnings)
    assert any("kubelet-client.crt has 64 days left" in line for line in warnings)
    assert [disk.pem(leaf) for leaf in disk.leaves] == before
    assert disk.reloaded == []


def test_metrics_say_when_each_certificate_ends_also_after_a_failure(tmp_path):
    disk = Disk(tmp_path, DEFAULT, "w1", age_days=300)
    assert disk.renew().returncode == 1
    text = disk.read(certificates.METRICS).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert len(lines) == len(disk.leaves) + 1  # and its authority
    (probe,) = (leaf for leaf in disk.leaves if leaf.name == "proxy-probe")
    end = x509.load_pem_x509_certificate(disk.pem(probe).encode()).not_valid_after_utc
    label = (
        f'x509_cert_not_after{{filename="proxy-probe.crt",filepath="{disk.at(probe.cert_path)}",'
        'subject_CN="clusterctl:probe"}'
    )
    assert int(lines[label]) == end.timestamp()


def test_while_an_operator_is_at_work_nothing_is_touched(tmp_path):
    disk = Disk(tmp_path, SEPARATE, "e1", age_days=300)
    before = [disk.pem(leaf) for leaf in disk.leaves]
    lock = tmp_path / "run" / "clusterctl.lock"
    lock.parent.mkdir()
    lock.touch()
    with subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo held; read _"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stdout.readline() == "held\n"
        done = disk.renew()
        operator.communicate("go\n")
    assert done.returncode == 0
    assert "operator" in done.stdout
    assert [disk.pem(leaf) for leaf in disk.leaves] == before


def test_no_other_unit_needs_a_reload_for_a_new_certificate():
    for of in (DEFAULT, SEPARATE):
        for one in of.machines:
            reloaded = {line[0] for line in certificates._reloads(of, one, TRUST, PLAIN)}
            for component in COMPONENTS:
                if not component.wanted(of, one):
                    continue
                state = component.state(of, one, TRUST, PLAIN)
                paths_of = {leaf.cert_path for leaf in state.leaves}
                for unit in state.units:
                    assert unit.name in reloaded or not paths_of & set(reads(unit, state))
