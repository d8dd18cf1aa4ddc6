"""AWS for tests: moto's server in its own process, behind a proxy that can inject errors."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import boto3

REGION = "eu-central-1"
ACCOUNT = "123456789012"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
AMI = "ami-0123456789abcdef0"
AMIS = [
    {
        "ami_id": AMI,
        "name": "debian-12-amd64-20260601-1",
        "owner_id": "136693071363",
        "architecture": "x86_64",
        "root_device_name": "/dev/xvda",
        "description": "Debian 12",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "image_type": "machine",
        "public": True,
        "state": "available",
        "creation_date": "2026-06-01T00:00:00.000Z",
    }
]
POLICY = Path(__file__).parents[1] / "docs" / "ec2-policy.json"
SERVER = Path(__file__).with_name("moto_server.py")
READS = re.compile(r"(Describe|Get|List|Head)")


def fetch(request):
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return answer.read()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def judged(policy, without=()):
    """Reduce a policy to the actions that moto can check. moto knows only conditions of trust."""
    for statement in policy["Statement"]:
        statement.pop("Condition", None)
        statement["Resource"] = "*"
        statement["Action"] = [a for a in statement["Action"] if a not in without]
    return policy


def operators_policy(*without):
    """The documented policy of the operator, without some actions."""
    policy = judged(json.loads(POLICY.read_text()), without)
    # moto's own name for the action that IAM calls s3:ListBucket.
    policy["Statement"][0]["Action"].append("s3:HeadBucket")
    return policy


@dataclass
class Moto:
    """An AWS account, in memory."""

    url: str
    key: str = "test"
    secret: str = "test"

    clients: dict = field(default_factory=dict)

    def client(self, service, region=REGION):
        # `key` and `secret` change when a test becomes another user.
        which = service, region, self.key, self.secret
        if which not in self.clients:
            self.clients[which] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id=self.key,
                aws_secret_access_key=self.secret,
            )
        return self.clients[which]

    def user(self, name, policy):
        """Create a user with this policy; return the ID and the secret of an access key."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def reset(self):
        fetch(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"))  # noqa: S310

    def enforce(self, *, enforced):
        """Set whether moto checks the rights of callers."""
        count = b"0" if enforced else b"inf"
        # urllib sends a form by default. moto would not find the number in it.
        plain = {"Content-Type": "text/plain"}
        url = f"{self.url}/moto-api/reset-auth"
        fetch(urllib.request.Request(url, count, plain, method="POST"))  # noqa: S310


@contextmanager
def moto_server(directory, host="127.0.0.1", **environment):
    """Run moto's server until the block ends."""
    amis = Path(directory) / "amis.json"
    amis.write_text(json.dumps(AMIS))
    port = free_port()
    with (Path(directory) / "moto.log").open("w") as log:
        process = subprocess.Popen(
            # -P: no module of the tests hides one that moto imports.
            [sys.executable, "-P", SERVER, "-H", host, "-p", str(port)],
            env={**os.environ, "MOTO_AMIS_PATH": str(amis), **environment},
            stdout=log,
            stderr=log,
        )
        try:
            moto = Moto(f"http://{host}:{port}")
            deadline = time.monotonic() + 120
            while True:
                try:
                    fetch(f"{moto.url}/moto-api/")
                    break
                except OSError:
                    assert process.poll() is None, Path(log.name).read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield moto
        finally:
            process.terminate()
            process.wait()


def action_of(handler, body):
    """The action of a request. EC2 and similar services name it in the form.

    S3 shows it by method and query; it is returned with S3's own names.
    """
    form = parse_qs(body.decode("latin-1"))
    if "Action" in form:
        return form["Action"][0]
    path, _, query = handler.path.partition("?")
    what = next((w for w in ("tagging", "publicAccessBlock", "versioning", "encryption", "policy",
                             "versions", "delete") if w in query), "")  # fmt: skip
    verb = {"PUT": "Put", "GET": "Get", "HEAD": "Head", "DELETE": "Delete", "POST": "Post"}
    return f"{verb[handler.command]}Bucket{what.capitalize()}"


@dataclass
class Proxy:
    """Passes requests to moto, and can answer in its place.

    Attributes:
        errors: action -> (status, code, message) of an answer that replaces moto's.
        times: action -> how often `errors` still applies; no entry: always.
        cut_after: number of a change, from 1; its answer and all later calls are lost. 0: none.
        cut: the connection is cut.
        heals: only the answer to that change is lost.
        calls: actions in the order in which they arrived, without dry runs.
    """

    moto: Moto
    url: str = ""
    errors: dict = field(default_factory=dict)
    times: dict = field(default_factory=dict)
    cut_after: int = 0
    cut: bool = False
    heals: bool = False
    calls: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def changes(self):
        """Calls that change something."""
        return [action for action in self.calls if not READS.match(action)]

    def reset(self):
        self.errors, self.times, self.cut_after, self.cut = {}, {}, 0, False
        self.heals = False
        self.calls = []


@contextmanager
def proxy_of(moto, host="127.0.0.1"):  # noqa: C901
    proxy = Proxy(moto)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the content of each answer waits 40 ms for the receipt of its headers.
        disable_nagle_algorithm = True

        def log_message(self, *args):
            pass

        def setup(self):
            super().setup()
            self.to_moto = http.client.HTTPConnection(proxy.moto.url.split("/")[-1], timeout=60)

        def finish(self):
            self.to_moto.close()
            super().finish()

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            action = action_of(self, body)
            dry = b"DryRun=true" in body
            with proxy.lock:
                if proxy.cut:
                    self.close_connection = True
                    return
                if not dry:
                    proxy.calls.append(action)
                changes = not dry and not READS.match(action)
                lost = changes and proxy.cut_after == len(proxy.changes)
                proxy.cut = lost and not proxy.heals
                error = proxy.errors.get(action)
                if dry and error and error[1] != "UnauthorizedOperation":
                    error = None
                if error and proxy.times.get(action, 1) <= 0:
                    error = None
                elif error and action in proxy.times:
                    proxy.times[action] -= 1
            if dry and not error:
                # moto executes some dry runs.
                error = (412, "DryRunOperation", "Request would have succeeded")
            if error:
                status, code, message = error
                text = (
                    f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>"
                    "</Error></Errors><RequestID>r</RequestID></Response>"
                    if "2016-11-15" in body.decode("latin-1")
                    else f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message>"
                    "</Error><RequestId>r</RequestId></ErrorResponse>"
                )
                self.answer(status, text.encode(), {"Content-Type": "text/xml"})
                return
            status, content, headers = self.forward(body)
            if lost:
                self.close_connection = True
                return
            self.answer(status, content, headers)

        def forward(self, body):
            skip = {"connection", "expect", "transfer-encoding"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skip}
            self.to_moto.request(self.command, self.path, body, headers)
            answer = self.to_moto.getresponse()
            return answer.status, answer.read(), dict(answer.headers)

        def answer(self, status, content, headers):
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding",
                                        "date", "server"}:  # fmt: skip
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
