"""The program that looks at a machine, as text and on the machine that runs the tests."""

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision.desired.addons import Manifest
from provision.desired.components import pod_network
from provision.model import paths
from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.settings.components import ArtifactsSource
from provision.model.settings.network import HttpProxy
from provision.model.source import LAB
from provision.observe import script
from provision.observe.parse import parse
from provision.observe.script import Query, query
from provision.pyinfra_plugin.facts import MachineState
from tests import world

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the probe runs as root")


def machine(name, address, **ssh):
    return Machine(
        name=name,
        address=IPv4Address(address),
        roles=frozenset({Role.MASTER, Role.ETCD}),
        ssh=Ssh(**{"hostname": address, **ssh}),
    )


def cluster(*machines):
    return Cluster(name="demo", machines=machines, inventory=Path("/inventory.py"))


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A function that writes lines into the machine's record."""
    directory = tmp_path / "record"
    monkeypatch.setattr(paths, "RECORD", str(directory))

    def write(*lines):
        directory.mkdir(exist_ok=True)
        with (directory / "component").open("a") as file:
            file.writelines("\t".join(map(str, line)) + "\n" for line in lines)

    return write


def run(query, shell="sh", **options):
    before = time.time()
    output = subprocess.run(
        [shell, "-c", query.program()], capture_output=True, text=True, check=True, **options
    ).stdout
    return output, parse("here", output, before, time.time())


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def installed(path, sha=None):
    """A record's line of a binary as it is now."""
    status = path.stat()
    return (
        *("binary", path, "pin", "1.2.3", sha or sha256(path)),
        *(status.st_size, status.st_ino, int(status.st_mtime), int(status.st_ctime)),
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_the_program_for_a_big_cluster_is_short_enough_and_valid_in(shell):
    machines = [machine(f"m{i}", f"10.0.0.{i + 1}") for i in range(60)]
    units = tuple(f"unit-{i}.service" for i in range(60))
    program = script.query(
        cluster(*machines), machines[0], units=units, reachability=True
    ).program()

    assert len(program) < 100_000
    subprocess.run([shell, "-n"], input=program, text=True, check=True)


def test_others_are_asked_for_at_the_port_of_their_sshd_unless_ssh_goes_another_way():
    here = machine("m1", "10.0.0.1")
    other = machine("m2", "10.0.0.2", port=2022)
    forwarded = machine("m3", "10.0.0.3", hostname="127.0.0.1", port=40001)
    whole = cluster(here, other, forwarded)

    program = script.query(whole, here, reachability=True).program()
    assert "peers='10.0.0.2 2022\n10.0.0.3 22'\n" in program
    assert "peers=''\n" in script.query(whole, here).program()


def test_the_fact_runs_the_same_program_and_gives_its_output_back():
    query = Query(address="10.0.0.1", files=("/etc/hostname",))

    assert MachineState().command(query=query) == query.program()
    assert MachineState().process(["@@ begin", "", "1.0"]) == "@@ begin\n\n1.0"


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_seen_as_they_are_by(shell, tmp_path, record):
    small = tmp_path / "a file $(touch pwned) 'of' \"ours\""
    small.write_text("content\n")
    small.chmod(0o640)
    os.chown(small, 1, 2)
    empty, big, link = tmp_path / "empty", tmp_path / "big", tmp_path / "link"
    empty.touch()
    big.write_bytes(bytes(1 << 20))
    link.symlink_to(small)
    record(("file", small), ("file", big), ("file", link), ("dir", tmp_path), ("file", "/nowhere"))

    output, seen = run(Query(address="127.0.0.1", files=(str(empty),)), shell, cwd=tmp_path)

    assert seen.error == ""
    assert set(seen.files) == {str(p) for p in (small, empty, big, link, tmp_path)}
    file = seen.files[str(small)]
    assert (file.kind, file.mode, file.owner, file.group) == ("file", 0o640, "daemon", "bin")
    assert (file.size, file.sha256) == (8, sha256(small))
    assert seen.files[str(empty)].sha256 == sha256(empty)
    assert seen.files[str(big)].sha256 == ""
    assert (seen.files[str(link)].kind, seen.files[str(link)].sha256) == ("link", "")
    assert seen.files[str(tmp_path)].kind == "directory"
    assert seen.files[str(tmp_path)].mode == stat.S_IMODE(tmp_path.stat().st_mode)
    assert not (tmp_path / "pwned").exists()
    assert output.count("\n@@ ") > 10


@as_root
def test_the_record_says_which_cluster_the_machine_belongs_to(record):
    record(("cluster", "demo", "f00d"), ("images", "abc"), ("unit", "none-such.service", "digest"))

    _, seen = run(Query(address="127.0.0.1"))

    assert (seen.cluster, seen.fingerprint, seen.images) == ("demo", "f00d", {"abc"})


@as_root
def test_a_binary_as_it_was_installed_is_not_hashed_again_unless_asked_to(tmp_path, record):
    binary = tmp_path / "kubelet"
    binary.write_bytes(os.urandom(2 << 20))
    binary.chmod(0o755)
    record(installed(binary, sha="0" * 64))

    _, glance = run(Query(address="127.0.0.1"))
    _, deep = run(Query(address="127.0.0.1", deep=True))

    assert glance.binaries[str(binary)].intact
    assert (glance.binaries[str(binary)].pin, glance.binaries[str(binary)].version) == (
        "pin",
        "1.2.3",
    )
    assert not deep.binaries[str(binary)].intact
    assert str(binary) not in glance.files


@as_root
@pytest.mark.parametrize(
    ("change", "intact"),
    [
        (lambda path: os.utime(path, (1, 1)), True),
        (lambda path: path.write_bytes(b"more" * 20), False),
        (lambda path: path.chmod(0o644), False),
        (lambda path: os.chown(path, 1, 1), False),
    ],
    ids=["touched", "rewritten", "chmod", "chown"],
)
def test_a_binary_that_is_not_as_recorded_is_judged_by_its_content_and_access(
    change, intact, tmp_path, record
):
    binary = tmp_path / "kubelet"
    binary.write_bytes(b"bytes" * 10)
    binary.chmod(0o755)
    record(installed(binary))
    change(binary)

    _, seen = run(Query(address="127.0.0.1"))

    assert seen.binaries[str(binary)].intact is intact


@as_root
def test_a_removed_binary_is_not_seen(tmp_path, record):
    binary = tmp_path / "kubelet"
    binary.touch()
    record(installed(binary))
    binary.unlink()

    assert run(Query(address="127.0.0.1"))[1].binaries == {}


@as_root
def test_the_probe_says_only_whether_a_key_is_the_recorded_one(tmp_path, record):
    ours, theirs = tmp_path / "ours.key", tmp_path / "theirs.key"
    ours.write_text(KEY)
    theirs.write_text(KEY + "\n")
    record(
        ("key", ours, sha256(ours)),
        ("key", theirs, sha256(ours)),
        ("key", tmp_path / "gone.key", "abc"),
    )

    output, seen = run(Query(address="127.0.0.1"))

    assert seen.files[str(ours)].sha256 == sha256(ours)
    assert seen.files[str(theirs)].sha256 == ""
    assert str(tmp_path / "gone.key") not in seen.files
    assert "c2VjcmV0" not in output
    assert sha256(theirs) not in output


@as_root
@pytest.mark.parametrize(
    "content",
    [KEY + CERTIFICATE, CERTIFICATE + KEY, "-----BEGIN CERTIFICATE-----\nMIIB\n" + KEY],
    ids=["key first", "key last", "cut off"],
)
def test_a_key_in_a_certificates_file_is_not_printed(content, tmp_path, record):
    path, plain = tmp_path / "client.pem", tmp_path / "plain.crt"
    path.write_text(content)
    plain.write_text("Issuer: demo\n" + CERTIFICATE + CERTIFICATE)
    record(("cert", path))

    output, seen = run(Query(address="127.0.0.1", certificates=(str(plain), "/no/such.crt")))

    assert "c2VjcmV0" not in output
    assert seen.certificates[str(path)].startswith("-----BEGIN CERTIFICATE-----\nMIIB\n")
    assert seen.certificates[str(plain)] == CERTIFICATE * 2


@as_root
def test_the_machine_is_described_as_other_programs_describe_it(record):
    def answer(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    _, seen = run(Query(address="127.0.0.1", packages=("no-such-package",)))

    host, facts = seen.host, seen.facts
    assert (host.hostname, host.kernel) == (socket.gethostname(), os.uname().release)
    assert host.cpus == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host.memory == pages >> 20
    free = os.statvfs("/var/lib")
    assert abs(host.var_free - (free.f_bavail * free.f_frsize >> 20)) < 500
    assert host.addresses
    assert set(host.addresses) <= set(answer("hostname", "-I").split())
    assert facts.arch in {"amd64", "arm64"}
    assert facts.cgroup_version == (2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1)
    assert seen.packages == frozenset()
    assert abs(host.clock_offset) < 1


@as_root
def test_the_interface_is_the_one_that_has_the_address(record):
    _, elsewhere = run(Query(address="203.0.113.9"))
    address = elsewhere.host.addresses[0]
    _, seen = run(Query(address=address))

    line = subprocess.run(
        ["ip", "-o", "addr", "show", "to", address], capture_output=True, text=True, check=True
    ).stdout
    assert line.split()[1] == seen.facts.interface
    assert (elsewhere.facts.interface, elsewhere.facts.network) == ("", "")


@as_root
def test_a_listening_socket_is_seen_with_the_process_that_holds_it(record):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _, seen = run(Query(address="127.0.0.1"))

    (held,) = [p for p in seen.host.ports if p.port == port]
    assert (held.protocol, held.address) == ("tcp", "127.0.0.1")
    assert held.process == Path("/proc/self/comm").read_text().strip()


@pytest.fixture
def silent():
    """Address and port of a listener whose queue is full: it drops what arrives."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.3", 0))
        server.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


@as_root
def test_a_new_machine_tells_which_others_it_reaches(record, silent):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = socket.create_server(("127.0.0.2", 0))
        peers = (server.getsockname(), closed.getsockname(), silent)
        closed.close()
        began = time.monotonic()
        _, seen = run(Query(address="127.0.0.1", peers=peers))
        took = time.monotonic() - began
        record(("cluster", "demo", "f00d"))
        _, known = run(Query(address="127.0.0.1", peers=peers))

    assert seen.host.reaches == {"127.0.0.1": True, "127.0.0.2": False, "127.0.0.3": False}
    assert 2 < took < 8  # the limit, and what a busy machine adds
    assert known.host.reaches == {}


class Server(BaseHTTPRequestHandler):
    """A registry that demands a password; as a proxy it answers for all others."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_error(401)

    def log_message(self, *_): ...


@as_root
def test_a_new_machine_tells_which_servers_answer_and_asks_through_the_proxy(record):
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = f"http://127.0.0.1:{server.server_port}"
        closed = "http://127.0.0.2:1/v2/"
        asked = (("docker.io", closed), ("docker.io", f"{own}/v2/"), ("quay.io", closed))
        _, direct = run(Query(address="127.0.0.1", downloads=asked))
        through = Query(
            address="127.0.0.1",
            downloads=(("ghcr.io", "http://ghcr.invalid/v2/"),),
            proxy=HttpProxy(http=own),
        )
        _, proxied = run(through)
        record(("cluster", "demo", "f00d"))
        _, known = run(through)
        server.shutdown()

    assert direct.host.downloads == {"docker.io": True, "quay.io": False}
    assert proxied.host.downloads == {"ghcr.io": True}
    assert known.host.downloads == {}
    assert server.asked == ["/v2/", "http://ghcr.invalid/v2/"]


def asked(published=False, **settings):
    of = world.cluster(**settings)
    found = query(of, of.machines[0], reachability=True, published=published).downloads
    registries = [pair for pair in found if pair[1].endswith("/v2/")]
    return registries, {name: url for name, url in found if not url.endswith("/v2/")}


def test_servers_are_tried_only_where_machines_certainly_download_from_them():
    mirrors = {"docker.io": ("mirror.example.org",)}
    upstream = [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("registry.k8s.io", "https://registry.k8s.io/v2/"),
    ]
    official = ArtifactsSource(source="official")
    registries, files = asked(artifacts=official, registry_mirrors=mirrors)
    assert registries == [("docker.io", "https://mirror.example.org/v2/"), *upstream]
    assert files.keys() == {"dl.k8s.io", "github.com"}
    assert files["dl.k8s.io"].startswith("https://dl.k8s.io/v1.")

    assert asked(artifacts=ArtifactsSource(source="build")) == ([], {})
    assert asked(artifacts=ArtifactsSource(source="auto")) == ([], {})
    assert asked(published=True) == (upstream, files)


def test_new_machines_are_asked_for_the_servers_alone():
    of = world.cluster()
    alone = query(of, of.machines[0], published=True)
    assert alone.downloads
    assert (alone.peers, alone.vip, alone.places, alone.rules) == ((), "", (), {})


def test_the_login_of_the_proxy_is_in_no_program_that_does_not_use_it():
    proxy = HttpProxy(
        http="http://me:hidden@192.0.2.9:3128", https="http://me:hidden@192.0.2.9:3128"
    )
    asked = Query("192.0.2.1", proxy=proxy, downloads=(("ghcr.io", "https://ghcr.io/v2/"),))
    assert "hidden" in asked.program()
    assert "hidden" not in replace(asked, downloads=()).program()


def test_a_mirror_of_files_is_tried_instead_of_the_publishers():
    mirror = ArtifactsSource(source="mirror", mirror="https://files.example.org/base")
    _, files = asked(artifacts=mirror)
    (url,) = files.values()
    assert files.keys() == {"files.example.org"}
    assert url.startswith("https://files.example.org/base/dl.k8s.io/v1.")


def test_machines_on_the_operators_computer_do_not_try_servers_of_files():
    registries, files = asked(published=True, source=LAB)
    assert registries
    assert files == {}


@as_root
def test_the_probe_writes_nothing(tmp_path, record):
    file = tmp_path / "file"
    file.write_text("content")
    record(("file", file))
    query = Query(address="127.0.0.1", packages=("bash",))
    frozen = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec sh -c "$0"'
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", frozen, query.program()],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        pytest.skip(f"no mount namespaces here: {answer.stderr.strip()}")

    seen = parse("here", answer.stdout, 0, 0)
    assert seen.files[str(file)].sha256 == sha256(file)


@as_root
def test_a_port_held_by_several_processes_has_the_unit_of_the_first(record):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = subprocess.Popen(["sleep", "60"], pass_fds=[server.fileno()])
        try:
            output, seen = run(Query(address="127.0.0.1"))
        finally:
            child.kill()
            child.wait()

    line = next(x for x in output.splitlines() if x.startswith("tcp") and f":{port} " in x)
    first = re.search(r"pid=(\d+)", line)[1]
    assert line.count("pid=") == 2
    assert f"==> /proc/{first}/cgroup <==" in output
    assert next(p.process for p in seen.host.ports if p.port == port) in line


@as_root
def test_without_root_the_error_says_so(record):
    _, seen = run(Query(address="127.0.0.1"), user=65534, group=65534, extra_groups=[], cwd="/")

    assert not seen.reachable
    assert "user 65534, not as root" in seen.error
    assert "_sudo" in seen.hint


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_another_host_at_the_virtual_address_is_noticed_by(shell, record, monkeypatch):
    refuses = Query(address="10.0.0.1", vip="127.0.0.1")  # a refusal is an answer too
    free = Query(address="10.0.0.1", vip="192.0.2.77")

    assert run(refuses, shell)[1].host.vip_answers
    assert not run(free, shell)[1].host.vip_answers
    assert not run(Query(address="10.0.0.1"), shell)[1].host.vip_answers


@as_root
def test_a_holder_of_the_virtual_address_is_not_asked_about_it(record, monkeypatch, tmp_path):
    config = tmp_path / "keepalived.conf"
    monkeypatch.setattr(script, "KEEPALIVED", str(config))
    config.write_text("virtual_ipaddress {\n    127.0.0.1/32 dev eth0\n}\n")

    assert "@@ virtual-address" not in run(Query(address="10.0.0.1", vip="127.0.0.1"))[0]
    config.write_text("    127.0.0.11/32 dev eth0\n")
    assert "@@ virtual-address" in run(Query(address="10.0.0.1", vip="127.0.0.1"))[0]


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_clusterctls_own_nft_tables_are_seen_by(shell, record):
    query = Query(address="127.0.0.1")
    made = 'nft add table ip clusterctl; nft add table ip other; exec "$0" -c "$1"'

    def look():
        return subprocess.run(
            ["unshare", "--net", "sh", "-ec", made, shell, query.program()],
            capture_output=True,
            text=True,
            check=False,
        )

    before = look()
    if before.returncode != 0:
        pytest.skip(f"no nftables in a namespace of its own here: {before.stderr.strip()}")
    record(("cluster", "demo", "f00d"))

    assert "@@ tables" not in before.stdout  # of a machine that is not ours
    assert "\n@@ tables\nip clusterctl\n@@ " in look().stdout


@as_root
@pytest.mark.parametrize(
    ("systemctl", "enabled", "firewalls"),
    [
        ("inactive\ninactive\nactive", "no", ("firewalld",)),
        ("inactive\ninactive\ninactive", "yes", ("ufw",)),
        ("active\nactive\ninactive", "no", ()),
        ("", None, ()),
    ],
)
def test_a_firewall_counts_when_it_is_at_work(
    systemctl, enabled, firewalls, record, monkeypatch, tmp_path
):
    config = tmp_path / "ufw.conf"
    monkeypatch.setattr(script, "UFW", str(config))
    if enabled:
        config.write_text(f"# comment\nENABLED={enabled}\nLOGLEVEL=low\n")
    said = f"systemctl() {{ [ $1 != is-active ] || printf '%s\\n' '{systemctl}'; }}\n"
    program = said + Query(address="127.0.0.1").program()

    output = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)

    assert parse("here", output.stdout, 0, 0).host.firewalls == firewalls


@as_root
@pytest.mark.parametrize(("etcd", "asked"), [("active", True), ("failed", False)])
def test_an_apiserver_without_its_etcd_is_not_asked_for_lists(
    etcd, asked, record, monkeypatch, tmp_path
):
    for name in ("BIN", "ETCD_PKI", "KUBERNETES"):
        monkeypatch.setattr(paths, name, str(tmp_path))
    (tmp_path / "healthcheck-client.key").touch()
    (tmp_path / "admin.conf").touch()
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/log\necho ok\n")
    kubectl.chmod(0o755)
    said = f"systemctl() {{ [ $1 != is-active ] || printf '%s\\n' {etcd} active inactive; }}\n"
    program = said + Query(address="127.0.0.1").program()

    output = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)

    api = parse("here", output.stdout, 0, 0).api
    assert ("nodes,configmaps" in (tmp_path / "log").read_text()) is asked
    assert ("etcd does not run on this machine" in api.error) is not asked


def objects_asked(tmp_path, monkeypatch, shell, answer, *names, given=()):
    """What a master with these manifests asks its API for objects, and what is understood."""
    for name in ("BIN", "ETCD_PKI", "KUBERNETES", "MANIFESTS"):
        monkeypatch.setattr(paths, name, str(tmp_path))
    for name in (*names, *given):
        (tmp_path / f"{name}.yaml").touch()
    (tmp_path / "admin.conf").touch()
    (tmp_path / "answer").write_text(answer)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        # One write for each call: the calls run side by side.
        f'#!/bin/sh\nwords=$(echo "$@" | tr "\\n" " ")\necho "$words" >>{tmp_path}/log\n'
        f'case "$*" in *readyz*) echo ok;; *-f*) cat {tmp_path}/answer;; esac\n'
    )
    kubectl.chmod(0o755)
    said = "systemctl() { [ $1 != is-active ] || printf '%s\\n' active active inactive; }\n"
    query = Query(address="127.0.0.1", given_manifests=tuple(Manifest(name, b"") for name in given))
    program = said + query.program()
    output = subprocess.run([shell, "-c", program], capture_output=True, text=True, check=True)
    asked = [re.sub(r"--output=jsonpath=.*?(?= -f|$)", "", line.partition("get ")[2]).split()
             for line in (tmp_path / "log").read_text().splitlines()]  # fmt: skip
    return asked, parse("here", output.stdout, 0, 0).api


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_the_objects_of_all_manifests_are_asked_for_at_once(shell, record, monkeypatch, tmp_path):
    answer = (
        "pods\tkube-system\t2\t2\t2\t2\n"
        'object\t{"apiVersion":"v1","kind":"Service","metadata":{"name":"kube-dns"}}\n'
    )

    asked, api = objects_asked(tmp_path, monkeypatch, shell, answer, "coredns", "access", "other")

    files = [
        *("-f", "/dev/null", "-f", f"{tmp_path}/access.yaml", "-f", f"{tmp_path}/coredns.yaml")
    ]
    assert ["--ignore-not-found", *files] in asked
    assert not [words for words in asked if words[:1] == ["pods"]]
    assert [thing["kind"] for thing in api.objects] == ["Service"]
    assert (api.given, api.unread) == (None, "")


@as_root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("counts", ["2\t2\t2\t1", "1\t2\t1\t1", "1\t1\t1\t"])
def test_pods_are_asked_for_only_if_some_are_not_ready(
    counts, shell, record, monkeypatch, tmp_path
):
    answer = f"pods\tns\t{counts}\npods\tns\t2\t2\t2\t1\npods\tother\t1\t1\t1\t1\n"

    asked, _ = objects_asked(tmp_path, monkeypatch, shell, answer, "coredns")

    assert [words for words in asked if words[:1] == ["pods"]] == [["pods"]]


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_of_the_operators_objects_only_names_leave_the_machine(
    shell, record, monkeypatch, tmp_path
):
    answer = "object\tv1\tSecret\tkube-system\tcni\t\n"

    asked, api = objects_asked(tmp_path, monkeypatch, shell, answer, given=("network-cni",))

    assert ["--ignore-not-found", "-f", "/dev/null", "-f", f"{tmp_path}/network-cni.yaml"] in asked
    assert [thing["kind"] for thing in api.given] == ["Secret"]
    assert re.findall(r"{([.@][\w.]*)}", script.GIVEN_MANIFESTS) == [
        *(".apiVersion", ".kind", ".metadata.namespace", ".metadata.name"),
        ".metadata.deletionTimestamp",
    ]


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_selinux_booleans_are_read_by(shell, record, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "SELINUX", str(tmp_path))
    (tmp_path / "booleans").mkdir()
    (tmp_path / "enforce").write_text("1")
    (tmp_path / "booleans/haproxy_connect_any").write_text("0 0")

    assert run(Query(address="127.0.0.1"), shell)[1].host.forbidden == ("haproxy_connect_any",)


# What libcni keeps of a pod, as a node of Kubernetes 1.37 had it.
RESULT = (
    '{"kind":"cniCacheV1","containerId":"%(sandbox)s","config":"e30=","ifName":"eth0",'
    '"networkName":"pods","netns":"%(netns)s","cniArgs":[["K8S_POD_NAMESPACE","t"],'
    '["K8S_POD_NAME","%(pod)s"],["K8S_POD_UID","3e10f419"],["IgnoreUnknown","1"]],'
    '"capabilityArgs":{"portMappings":[{"HostPort":%(port)d,"ContainerPort":8080,"Protocol":"tcp",'
    '"HostIP":""}]},"result":{"cniVersion":"1.0.0","interfaces":[{"mac":"2e:f8","name":"cni0"},'
    '{"mac":"92:91","name":"eth0","sandbox":"%(netns)s"}],"ips":[{"address":"10.244.0.5/24"}]}}'
)


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_pods_whose_host_ports_have_no_rules_are_seen_by(shell, record, monkeypatch, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "conflist").write_text('"subnet": "10.244.0.0/24"')
    monkeypatch.setattr(pod_network, "RESULTS", str(results))
    monkeypatch.setattr(pod_network, "CONFLIST", str(tmp_path / "conflist"))
    for sandbox, pod, port, netns in (
        ("aa11", "mapped", 80, tmp_path),
        ("bb22", "unmapped", 81, tmp_path),
        ("cc33", "ended", 82, tmp_path / "gone"),
        ("dd44", "without-ports", 0, tmp_path),
    ):
        result = RESULT % {"sandbox": sandbox, "pod": pod, "port": port, "netns": netns}
        (results / f"pods-{sandbox}-eth0").write_text(result)
        (results / f"cni-loopback-{sandbox}-lo").write_text(result)
    made = (
        "nft add table ip cni_hostport; nft add chain ip cni_hostport hostports; nft add rule ip "
        'cni_hostport hostports tcp dport 80 accept comment aa11; exec "$0" -c "$1"'
    )

    looked = subprocess.run(
        ["unshare", "--net", "sh", "-ec", made, shell, Query(address="127.0.0.1").program()],
        capture_output=True,
        text=True,
        check=False,
    )

    if looked.returncode != 0:
        pytest.skip(f"no nftables in a namespace of its own here: {looked.stderr.strip()}")
    assert "\n@@ unmapped\nt/unmapped\n@@ " in looked.stdout


def test_settings_that_a_cluster_keeps_for_life_are_read_from_its_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "UNITS", str(tmp_path))
    monkeypatch.setattr(script, "KUBELET_CONFIG", str(tmp_path / "config.yaml"))
    golden = Path(__file__).parents[1] / "golden/files/m1"
    for unit in ("kube-apiserver.service", "kube-controller-manager.service"):
        (tmp_path / unit).write_text((golden / "etc/systemd/system" / unit).read_text())
    config = (golden / "var/lib/kubelet/config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config)

    _, seen = run(Query("192.0.2.11"))

    assert seen.for_life == {
        "cluster-cidr": "10.244.0.0/16",
        "node-cidr-mask-size": "24",
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "domain": "cluster.local",
    }


@as_root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("own", "upstream", "used", "resolver"),
    [
        ("nameserver 192.0.2.53", "nameserver 192.0.2.54", "own", ""),
        ("nameserver 127.0.0.53\noptions edns0", "nameserver 192.0.2.54", "upstream", ""),
        ("nameserver 127.0.0.1", "nameserver 192.0.2.54", "upstream", ""),
        ("nameserver\t127.0.1.1", "nameserver 192.0.2.54", "upstream", ""),
        ("nameserver ::1", "search example.org\nnameserver 192.0.2.54", "upstream", ""),
        ("nameserver 192.0.2.53\nnameserver ::1", "nameserver 192.0.2.54", "upstream", ""),
        ("# nameserver 127.0.0.1\nnameserver 192.0.2.53", "", "own", ""),
        ("nameserver 127.0.0.1", "", "own", "127.0.0.1"),
        ("nameserver ::1", "nameserver 127.0.0.1", "own", "::1"),
        ("nameserver 127.0.0.1", "# no server is known", "own", "127.0.0.1"),
    ],
)
def test_pods_get_a_resolv_conf_without_the_machines_own_resolver(
    shell, own, upstream, used, resolver, tmp_path, record, monkeypatch
):
    files = {"own": tmp_path / "resolv.conf", "upstream": tmp_path / "upstream.conf"}
    files["own"].write_text(own + "\n")
    if upstream:
        files["upstream"].write_text(upstream + "\n")
    monkeypatch.setattr(script, "RESOLV_CONF", str(files["own"]))
    monkeypatch.setattr(script, "UPSTREAMS", ("/no/such", str(files["upstream"])))

    _, seen = run(Query(address="127.0.0.1"), shell)

    assert (seen.facts.resolv_conf, seen.host.resolver) == (str(files[used]), resolver)


@pytest.mark.parametrize(("mode", "asked"), [("nftables", True), ("iptables", False)])
def test_only_a_kube_proxy_with_nftables_must_have_its_table(mode, asked):
    networks = world.DEFAULT.networks.model_copy(update={"proxy_mode": mode})
    changed = world.DEFAULT.model_copy(update={"networks": networks})

    tables = query(changed, changed.machine("w1")).tables

    assert ("ip kube-proxy" in tables) == asked
    assert "ip clusterctl" in tables
