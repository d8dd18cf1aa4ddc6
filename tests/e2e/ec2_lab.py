"""EC2 on this computer: moto keeps the account, and containers of the lab's image are instances.

This module watches moto and adds what moto does not do. An instance in moto becomes a container at
its private address, with the host key, hostname and volume of its user data, and with its key pair.
A route in moto's route table becomes a route of this computer, which is the subnet's router as the
VPC's router is on EC2. The metadata service uses version 2 of its protocol, and gives credentials
of the instance's role. moto checks the signatures and rights of all callers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from provision.local.progress import Silent
from provision.machines import container_engine, image
from provision.machines.archive import archive
from provision.machines.lab_names import VOLUMES
from provision.machines.lab_network import mac, resolv_conf
from provision.model.errors import MachinesError
from tests.aws import Moto, judged, moto_server, operators_policy, proxy_of

INVENTORY = Path(__file__).parent / "inventories" / "ec2.py"
# The hash tells the labs of different checkouts apart.
NAME = f"test-ec2-{hashlib.sha256(str(INVENTORY).encode()).hexdigest()[:8]}"
LABEL = "clusterctl.test-ec2"
TOKEN = "of-the-metadata-service"
AWAIT = "until systemctl show-environment >/dev/null 2>&1; do sleep 0.1; done"
TOKEN_LIFE = "X-aws-ec2-metadata-token-ttl-seconds"
METADATA_RULES = """
table ip metadata {{
  chain output {{
    type nat hook output priority -100
    ip daddr 169.254.169.254 tcp dport 80 dnat to {gateway}:{port}
  }}
}}
"""


@dataclass
class Ec2Lab:
    moto: Moto
    endpoint: str
    operator: dict[str, str]  # environment of clusterctl with the operator's credentials
    network: IPv4Network
    name: str
    folder: Path
    metadata_port: int
    started: dict[str, str] = field(default_factory=dict)  # instance -> container
    routes: dict[str, str] = field(default_factory=dict)  # destination -> address
    instances: dict[str, str] = field(default_factory=dict)  # address -> instance
    errors: list[str] = field(default_factory=list)

    @property
    def engine(self) -> container_engine.Engine:
        return container_engine.working()

    @property
    def gateway(self) -> str:
        return str(self.network[1])

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.3):
            try:
                self.follow()
            except Exception as error:  # noqa: BLE001  the test shows what went wrong
                self.errors.append(repr(error))

    def follow(self) -> None:
        """Make the containers and routes of this computer match moto."""
        ec2 = self.moto.client("ec2")
        alive = {
            i["InstanceId"]: i
            for reservation in ec2.describe_instances()["Reservations"]
            for i in reservation["Instances"]
            if i["State"]["Name"] in {"pending", "running"}
        }
        for id_ in self.started.keys() - alive.keys():
            self.end(self.started.pop(id_))
        for id_ in alive.keys() - self.started.keys():
            self.boot(alive[id_])
        wanted = {
            route["DestinationCidrBlock"]: alive[route["InstanceId"]]["PrivateIpAddress"]
            for table in ec2.describe_route_tables()["RouteTables"]
            for route in table["Routes"]
            if route.get("InstanceId") in alive
        }
        for network in self.routes.keys() - wanted.keys():
            ip("route", "del", network)
            del self.routes[network]
        for network, address in wanted.items():
            if self.routes.get(network) != address:
                ip("route", "replace", network, "via", address)
                self.routes[network] = address

    def end(self, container: str) -> None:
        """Remove a container and its disks, except the volume that outlives an instance."""
        self.engine.run("rm", "--force", "--time=0", "--volumes", container)
        for volume in self.engine.volumes():
            if volume.startswith(f"{container}-") and volume != f"{container}-etcd":
                self.engine.run("volume", "rm", volume)

    def boot(self, instance: dict) -> None:
        ec2, id_ = self.moto.client("ec2"), instance["InstanceId"]
        # moto shows these groups only for the instance's interface, until a call changes them.
        if groups := [g["GroupId"] for g in instance["NetworkInterfaces"][0]["Groups"]]:
            ec2.modify_instance_attribute(InstanceId=id_, Groups=groups)
        data = ec2.describe_instance_attribute(InstanceId=id_, Attribute="userData")
        config = yaml.safe_load(base64.b64decode(data["UserData"]["Value"]))
        hostname = config.get("hostname", "localhost")
        container = f"{self.name}-{config.get('hostname', id_)}"
        address = instance["PrivateIpAddress"]
        disks = {f"{container}-{v}": path for v, path in VOLUMES.items() if v != "etcd"}
        if "bootcmd" in config:
            disks[f"{container}-etcd"] = VOLUMES["etcd"]
        mounts = {source: f"{path}{self.engine.volume_options}" for source, path in disks.items()}
        mounts[str(self.folder / "resolv.conf")] = "/etc/resolv.conf"
        if Path("/lib/modules").is_dir():
            mounts["/lib/modules"] = "/lib/modules:ro"
        self.engine.run(
            "create", *self.engine.machine_flags, f"--name={container}",
            f"--hostname={hostname}", f"--network={self.name}", f"--ip={address}",
            f"--mac-address={mac(address_of(address))}", f"--label={LABEL}={self.name}",
            *(f"--volume={source}:{target}" for source, target in mounts.items()),
            image.ensure(self.engine, "full", Silent()), "/sbin/init",
        )  # fmt: skip
        files = {
            file["path"][1:]: (file["content"].encode(), int(file["permissions"], 8))
            for file in config.get("write_files", ())
        }
        if keys := config.get("ssh_keys"):
            named = {"KeyNames": [instance["KeyName"]], "IncludePublicKey": True}
            (pair,) = ec2.describe_key_pairs(**named)["KeyPairs"]
            files |= {
                "etc/ssh/ssh_host_ed25519_key": (keys["ed25519_private"].encode(), 0o600),
                "etc/ssh/ssh_host_ed25519_key.pub": (f"{keys['ed25519_public']}\n".encode(), 0o644),
                f"{image.AUTHORIZED_KEYS[1:]}/{image.ADMIN}": (self.public(pair), 0o644),
            }
        self.engine.put(container, archive(files))
        self.instances[address] = id_
        self.engine.run("start", container)
        rules = METADATA_RULES.format(gateway=self.gateway, port=self.metadata_port)
        self.engine.run("exec", "--interactive", container, "nft", "-f", "-", stdin=rules.encode())
        self.started[id_] = container
        # For etcd members, the container itself has the mount.
        for command in config["runcmd"] if "write_files" in config else ():
            self.engine.run("exec", container, "sh", "-c", f"{AWAIT}; {shlex.join(command)}")

    def public(self, pair: dict) -> bytes:
        if "PublicKey" in pair:
            return f"{pair['PublicKey']}\n".encode()
        (file,) = self.folder.glob("state/clusterctl/ec2/*/id_ed25519.pub")
        return file.read_bytes()

    def clean(self) -> None:
        """Remove everything that `boot` and `follow` made, also in a killed run."""
        for network in self.routes:
            with suppress(subprocess.CalledProcessError):
                ip("route", "del", network)
        clean(self.name)


def clean(name: str = NAME) -> None:
    """Remove containers, volumes and network of a lab. Its routes go with the network."""
    engine = container_engine.working()
    engine.remove_containers(engine.containers(f"{LABEL}={name}"))
    for volume in engine.volumes():
        if volume.startswith(f"{name}-"):
            engine.run("volume", "rm", volume)
    if any(n.name == name for n in engine.networks()):
        engine.run("network", "rm", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def address_of(text: str):
    return IPv4Network(text).network_address


class Metadata(BaseHTTPRequestHandler):
    """The instance metadata service, version 2: it answers only with a token."""

    server: MetadataServer

    def log_message(self, *args):
        pass

    def do_PUT(self):
        asked = self.headers.get(TOKEN_LIFE)
        self.answer(200, TOKEN, **{TOKEN_LIFE: asked}) if asked else self.answer(400, "")

    def do_GET(self):
        base = "/latest/meta-data/iam/security-credentials/"
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.answer(401, "")
        elif self.path == base:
            self.answer(200, "role")
        elif self.path == f"{base}role":
            self.answer(200, json.dumps(self.server.credentials(self.instance), indent=2))
        elif self.path == "/latest/meta-data/instance-id":
            self.answer(200, self.instance)
        elif self.path == "/latest/meta-data/local-ipv4":
            self.answer(200, self.client_address[0])
        else:
            self.answer(404, "")

    @property
    def instance(self):
        return self.server.lab.instances[self.client_address[0]]

    def answer(self, status, text, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


class MetadataServer(ThreadingHTTPServer):
    lab: Ec2Lab

    def handle_error(self, request, client_address):
        """Show the test what went wrong. A client may close the connection at any time."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.lab.errors.append(repr(error))

    def credentials(self, instance: str) -> dict[str, str]:
        """Credentials of a role with those rights of the instance's role that moto can check."""
        iam, ec2 = self.lab.moto.client("iam"), self.lab.moto.client("ec2")
        (found,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
        key = next(t["Value"] for t in found["Tags"] if t["Key"] == "clusterctl:key")
        side = "masters" if key.startswith("instance m") else "workers"
        twin = f"twin-{side}"
        (role,) = (
            r["RoleName"]
            for r in iam.list_roles()["Roles"]
            if side in r["RoleName"] and r["RoleName"] != twin
        )
        policy = iam.get_role_policy(RoleName=role, PolicyName="clusterctl")["PolicyDocument"]
        everyone = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(
                RoleName=twin,
                AssumeRolePolicyDocument=json.dumps(
                    {"Version": "2012-10-17", "Statement": [everyone]}
                ),
            )
        iam.put_role_policy(
            RoleName=twin, PolicyName="p", PolicyDocument=json.dumps(judged(policy))
        )
        arn = iam.get_role(RoleName=twin)["Role"]["Arn"]
        sts = self.lab.moto.client("sts")
        given = sts.assume_role(RoleArn=arn, RoleSessionName=instance)["Credentials"]
        return {
            "Code": "Success",
            "AccessKeyId": given["AccessKeyId"],
            "SecretAccessKey": given["SecretAccessKey"],
            "Token": given["SessionToken"],
            "Expiration": given["Expiration"].isoformat(),
        }


@contextmanager
def ec2_lab(folder: Path, network: IPv4Network, name: str):
    """An account whose instances are started as containers, until the block ends."""
    metadata = MetadataServer(("0.0.0.0", 0), Metadata)  # noqa: S104  the machines ask it
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    (folder / "resolv.conf").write_text(resolv_conf(Path("/etc/resolv.conf").read_text()))
    stop = threading.Event()
    with moto_server(folder) as moto, proxy_of(moto, "0.0.0.0") as proxy:  # noqa: S104
        endpoint = f"http://{network[1]}:{proxy.url.rpartition(':')[2]}"
        anything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        all_powerful = {"Version": "2012-10-17", "Statement": [anything]}
        moto.key, moto.secret = moto.user("test", all_powerful)
        key, secret = moto.user("operator", operators_policy())
        operator = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        moto.enforce(enforced=True)
        lab = Ec2Lab(moto, endpoint, operator, network, name, folder, metadata.server_port)
        metadata.lab = lab
        watcher = threading.Thread(target=lab.watch, args=(stop,), daemon=True)
        lab.clean()
        try:
            lab.engine.create_network(name, network, {LABEL: name})
            # A bridge has its address only while a container is connected to it.
            lab.engine.run(
                "run", "--detach", *lab.engine.machine_flags, f"--name={name}-router",
                f"--network={name}", f"--ip={network[-2]}", f"--label={LABEL}={name}",
                image.ensure(lab.engine, "full", Silent()), "sleep", "infinity",
            )  # fmt: skip
            watcher.start()
            yield lab
        finally:
            stop.set()
            if watcher.is_alive():
                watcher.join(30)
            metadata.shutdown()
            with suppress(MachinesError):
                lab.clean()
