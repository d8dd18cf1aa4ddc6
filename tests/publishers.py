"""The publishers' servers and registries, on this computer: for tests and the bench.

One server speaks three ways, all of them settings of the product:

- as a mirror (`"artifacts": {"source": "mirror"}`): BASE/HOST/PATH;
- as a mirror of registries (`registry_mirrors`): BASE/v2/NAME/...?ns=HOST;
- as an HTTP proxy (`proxy`, HTTPS_PROXY): it answers CONNECT itself, for every host that it has, with
  a certificate of its own authority. So clients use the publishers' URLs as they are.

`copy_of_clusterctl` makes a clusterctl whose catalogue has the hashes of these files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import ssl
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provision.artifacts import prepare
from provision.artifacts.catalogue import Catalogue, pins
from provision.artifacts.images import IMAGES, TABLE
from provision.artifacts.recipes import RECIPES
from provision.local.progress import Silent
from provision.model.settings.components import KUBERNETES_DEFAULT, ArtifactsSource

ROOT = Path(__file__).parents[1]
STORAGE = "docker/registry/v2"
PUBLISHED = ("kubernetes", "etcd", "containerd", "runc", "cni-plugins", "registry", "age")
REGISTRY_HOSTS = {"registry-1.docker.io": "docker.io", "registry.k8s.io": "registry.k8s.io"}
_PIECE = 64 << 10

Content = bytes | Path


class Link:
    """A link that all connections share.

    Attributes:
        rate: bytes per second; 0: without a limit.
    """

    def __init__(self, rate: float = 0) -> None:
        self.rate, self.sent = rate, 0
        self._free = time.monotonic()
        self._lock = threading.Lock()

    def send(self, count: int) -> None:
        """Wait until the link has sent `count` bytes."""
        with self._lock:
            self.sent += count
            if not self.rate:
                return
            now = time.monotonic()
            self._free = max(self._free, now) + count / self.rate
            wait = self._free - now
        time.sleep(wait)


@dataclass
class Publishers:
    """The server.

    Attributes:
        files: /HOST/PATH -> content.
        storage: a registry's storage, the root of `docker/registry/v2`; None: no images.
        faults: /HOST/PATH -> what happens to the next requests: `cut` ends the connection in the
            middle, `wrong` changes the first byte, a number is an HTTP status.
        asked: /HOST/PATH of every request, with its method.
    """

    directory: Path
    files: dict[str, Content]
    storage: Path | None = None
    link: Link = field(default_factory=Link)
    faults: dict[str, list[str | int]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        hosts = {path.split("/")[1].partition(":")[0] for path in self.files}
        self.authority = self.directory / "authority.crt"
        self._tls = _tls(self.directory, self.authority, {*hosts, *REGISTRY_HOSTS})
        handler = type("Handler", (_Handler,), {"publishers": self, "tls": self._tls})
        self.server = ThreadingHTTPServer(("", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, address: str = "127.0.0.1") -> str:
        """The server's URL for clients that reach this computer at that address."""
        return f"http://{address}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables of an operator whose computer has the proxy."""
        return {
            "https_proxy": self.url(),
            "HTTPS_PROXY": self.url(),
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(self.authority),
        }

    def got(self, text: str) -> list[str]:
        """Paths that were requested with GET and have a text in them."""
        return [path for method, path in self.asked if method == "GET" and text in path]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def find(self, host: str, target: str) -> tuple[str, Content | None, str]:
        """A request's /HOST/PATH, its content, and the content's type."""
        parts = urlsplit(target)
        host = parts.netloc or host
        if parts.path.startswith("/v2/") and self.storage:
            names = parse_qs(parts.query).get("ns", [REGISTRY_HOSTS.get(host, host)])
            return f"/{names[0]}{parts.path}", *self._image(names[0], parts.path)
        path = f"/{host}{parts.path}" if host else parts.path
        return path, self.files.get(path), "application/octet-stream"

    def _image(self, registry: str, path: str) -> tuple[Content | None, str]:
        """What a registry answers: the storage has its files as the program `registry` writes them."""
        assert self.storage is not None
        if path == "/v2/":
            return b"{}", "application/json"
        asked = re.fullmatch(r"/v2/([a-z0-9./-]+)/(manifests|blobs)/([\w.:-]+)", path)
        if not asked:
            return None, ""
        name, kind, reference = asked.groups()
        if ":" not in reference:
            tag = f"repositories/{registry}/{name}/_manifests/tags/{reference}/current/link"
            if not (self.storage / tag).is_file():
                return None, ""
            reference = (self.storage / tag).read_text().strip()
        digest = reference.removeprefix("sha256:")
        blob = self.storage / "blobs/sha256" / digest[:2] / digest / "data"
        if not blob.is_file():
            return None, ""
        if kind == "blobs":
            return blob, "application/octet-stream"
        return blob, json.loads(blob.read_bytes())["mediaType"]


class _Handler(BaseHTTPRequestHandler):
    """`host`: that of the tunnel; empty outside of one."""

    publishers: Publishers
    tls: ssl.SSLContext
    host = ""

    def do_CONNECT(self) -> None:
        self.send_response(200, "Connection established")
        self.end_headers()
        self.host = self.path.partition(":")[0]
        self.connection = self.request = self.tls.wrap_socket(self.connection, server_side=True)
        super().setup()
        self.close_connection = False

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def finish(self) -> None:
        super().finish()
        if isinstance(self.connection, ssl.SSLSocket):
            # The server closes only the socket that the tunnel has taken over.
            self.connection.close()

    def _answer(self, *, body: bool) -> None:
        publishers = self.publishers
        path, content, kind = publishers.find(self.host, self.path)
        publishers.asked.append((self.command, path))
        queue = publishers.faults.get(path, []) if body else []
        fault = queue.pop(0) if queue else None
        if content is None or isinstance(fault, int):
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", kind)
        if isinstance(content, Path) and "/v2/" in path:
            self.send_header("Docker-Content-Digest", f"sha256:{content.parent.name}")
        self.end_headers()
        if not body:
            return
        end = size // 2 if fault == "cut" else size
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            first = True
            while end and (piece := file.read(min(_PIECE, end))):
                end -= len(piece)
                if first and fault == "wrong":
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                first = False
                publishers.link.send(len(piece))
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None: ...


def _tls(directory: Path, authority: Path, hosts: set[str]) -> ssl.SSLContext:
    """A server's TLS: an authority, and a certificate for all hosts."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the publishers of a test")])
    own, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )

    ca = made(name, own.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    authority.write_bytes(_pem(ca.sign(own, hashes.SHA256())))
    names = x509.SubjectAlternativeName([_general(host) for host in sorted(hosts)])
    leaf = made(x509.Name([]), key.public_key()).add_extension(names, critical=True)
    both = directory / "server.pem"
    both.touch(mode=0o600)
    both.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + _pem(leaf.sign(own, hashes.SHA256()))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True)
class Release:
    """Everything that the publishers have for a cluster.

    Attributes:
        files: as in `Publishers`.
        hashes: hash in the shipped catalogue -> hash of the file here.
        storage: as in `Publishers`.
    """

    files: Mapping[str, Content]
    hashes: Mapping[str, str]
    storage: Path | None = None


def release(
    programs: Mapping[str, Content],
    arch: str,
    directory: Path,
    images: Path | None = None,
    *,
    compress: bool = False,
) -> Release:
    """Make the release files of the default version out of programs.

    Args:
        programs: `component/program` -> the program. Files of other programs are not made.
        images: the tar of the images; None: without images.
        compress: compress the images' layers, as upstream's are.
    """
    files: dict[str, Content] = {}
    hashes = {}
    by_url: dict[str, list[tuple[str, Content, str]]] = {}
    for pin in pins(KUBERNETES_DEFAULT):
        if pin.arch != arch or pin.name not in programs:
            continue
        path = f"/{pin.url.removeprefix('https://')}"
        content = programs[pin.name]
        if pin.member is None:
            files[path] = content
            hashes[pin.sha256] = sha256(content)
        else:
            by_url.setdefault(path, []).append((pin.member, content, pin.sha256))
    for number, (path, members) in enumerate(by_url.items()):
        archive = directory / f"{number}-{path.rpartition('/')[2]}"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for member, content, _ in members:
                _add(tar, member, content)
        files[path] = archive
        hashes[members[0][2]] = sha256(archive)
    storage = None
    if images:
        with tarfile.open(images) as tar:
            tar.extractall(directory / "images", filter="data")
        storage = directory / "images" / STORAGE
        if compress:
            _compress_layers(storage)
        for image in TABLE.values():
            if image.digest:
                name, _, tag = image.reference.rpartition(":")
                link = storage / f"repositories/{name}/_manifests/tags/{tag}/current/link"
                hashes[image.digest.partition(":")[2]] = link.read_text().partition(":")[2].strip()
    return Release(files, hashes, storage)


def _compress_layers(storage: Path) -> None:
    """Replace the image of each tag in a registry's storage by the same with compressed layers."""
    done: dict[str, tuple[str, int]] = {}

    def blob(digest: str) -> Path:
        return storage / "blobs/sha256" / digest[:2] / digest / "data"

    def put(content: bytes) -> tuple[str, int]:
        path = blob(digest := sha256(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest, len(content)

    for link in storage.glob("repositories/**/_manifests/tags/*/current/link"):
        manifest = json.loads(blob(link.read_text().partition(":")[2].strip()).read_bytes())
        for layer in manifest["layers"]:
            old = layer["digest"].partition(":")[2]
            if old not in done:
                done[old] = put(gzip.compress(blob(old).read_bytes(), compresslevel=1, mtime=0))
            digest, size = done[old]
            kind = "application/vnd.oci.image.layer.v1.tar+gzip"
            layer |= {"digest": f"sha256:{digest}", "size": size, "mediaType": kind}
        digest, _ = put(json.dumps(manifest).encode())
        link.write_text(f"sha256:{digest}")


def programs_of_this_computer(arch: str) -> tuple[dict[str, Content], Path]:
    """`component/program` -> its file in the user's cache, and the tar of the images; compiled if need be."""
    names = [
        f"{component}/{name}" for component in PUBLISHED for name in RECIPES[component].packages
    ]
    wanted = [(name, arch) for name in (*names, IMAGES)]
    made = prepare(ArtifactsSource(source="build"), KUBERNETES_DEFAULT, wanted, Silent())
    local: dict[str, Content] = {
        name: item.local for (name, _), item in made.items.items() if item.local
    }
    images = local.pop(IMAGES)
    assert isinstance(images, Path)
    return local, images


def _add(tar: tarfile.TarFile, member: str, content: Content) -> None:
    if isinstance(content, Path):
        tar.add(content, member)
        return
    info = tarfile.TarInfo(member)
    info.size, info.mode = len(content), 0o755
    tar.addfile(info, io.BytesIO(content))


def sha256(content: Content) -> str:
    """The SHA-256 of a file or of bytes, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_hashes(checkout: Path, hashes: Mapping[str, str]) -> None:
    """Write the hashes of a release into the catalogue of a checkout."""
    for name in ("catalogue.yaml", "images.py"):
        path = checkout / "provision" / "artifacts" / name
        text = path.read_text()
        for old, new in hashes.items():
            text = text.replace(old, new)
        path.write_text(text)
    Catalogue.read(checkout / "provision" / "artifacts" / "catalogue.yaml")


def copy_of_clusterctl(directory: Path, hashes: Mapping[str, str]) -> Sequence[str]:
    """Copy this checkout's program, with other hashes in its catalogue.

    Returns:
        The command that starts the copy.
    """
    for name in ("provision", "templates", "vagrant"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    replace_hashes(directory, hashes)
    start = "from provision.__main__ import run; run()"
    return (
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(directory)!r}); {start}",
    )


def users_variables(home: Path) -> dict[str, str]:
    """This process's variables, without a proxy and without caches; what is kept, is in `home`."""
    hidden = re.compile(r"(?i)(https?|no|all)_proxy|PYTHONPATH|SSL_CERT_.*|XDG_.*")
    given = {name: value for name, value in os.environ.items() if not hidden.fullmatch(name)}
    return given | {"XDG_CACHE_HOME": str(home / "cache"), "XDG_STATE_HOME": str(home / "state")}
