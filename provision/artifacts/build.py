"""The source `build`: programs compiled here from pinned Go modules, and images made of them.

Every component has a directory in build/ with go.mod and go.sum. What is built is kept under
`builds/COMPONENT-VERSION-KEY/ARCH/` in the user's cache, where KEY is a hash of those files and of
the recipe: only the first run builds, and a changed pin builds again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provision.artifacts import cache, go, oci
from provision.artifacts.catalogue import catalogue
from provision.artifacts.images import IMAGES, TABLE, TOOLS, Image
from provision.artifacts.model import Ready
from provision.local.progress import Progress
from provision.model.errors import ArtifactError

MODULES = Path(__file__).with_name("modules")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Every program imports the user's database at most to look its own user up.
_BASE = (
    oci.File("tmp", None, 0o1777),
    oci.File(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        b"nonroot:x:65532:65532:nonroot:/nonexistent:/bin/false\n",
        0o644,
    ),
    oci.File("etc/group", b"root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n", 0o644),
)


@dataclass(frozen=True)
class Recipe:
    """How one component is compiled.

    Attributes:
        module: the required module whose version is the component's; "" for our own programs.
        packages: program -> package; "." is the module in the directory itself.
        stamp: variables set at link time; {version}, {major}, {minor} are filled in.
        static_c: needs a C compiler; C libraries are linked in.
    """

    module: str
    packages: Mapping[str, str]
    stamp: Mapping[str, str]
    tags: tuple[str, ...] = ()
    static_c: bool = False


def _under(prefix: str, *names: str) -> Mapping[str, str]:
    return {name.rpartition("/")[2]: f"{prefix}/{name}" for name in names}


def _kubernetes_stamp(*packages: str) -> Mapping[str, str]:
    values = {
        "gitVersion": "v{version}",
        "gitMajor": "{major}",
        "gitMinor": "{minor}",
        "gitTreeState": "archive",
        "gitCommit": "",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    return {f"{p}/version.{name}": value for p in packages for name, value in values.items()}


RECIPES: Mapping[str, Recipe] = {
    "kubernetes": Recipe(
        "k8s.io/kubernetes",
        _under(
            "k8s.io/kubernetes/cmd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        _kubernetes_stamp("k8s.io/component-base", "k8s.io/client-go/pkg"),
    ),
    "etcd": Recipe(
        "go.etcd.io/etcd/server/v3",
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
            "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
        },
        {},
    ),
    "containerd": Recipe(
        "github.com/containerd/containerd/v2",
        _under(
            "github.com/containerd/containerd/v2/cmd",
            "containerd",
            "containerd-shim-runc-v2",
            "ctr",
        ),
        {"github.com/containerd/containerd/v2/version.Version": "v{version}"},
    ),
    # Static, because a machine may have an older C library and no libseccomp.
    "runc": Recipe(
        "github.com/opencontainers/runc",
        {"runc": "github.com/opencontainers/runc"},
        {"main.gitCommit": "v{version}"},
        tags=("seccomp", "netgo", "osusergo", "urfave_cli_no_docs"),
        static_c=True,
    ),
    "cni-plugins": Recipe(
        "github.com/containernetworking/plugins",
        _under(
            "github.com/containernetworking/plugins/plugins",
            "main/bridge",
            "main/loopback",
            "ipam/host-local",
            "meta/portmap",
        ),
        {
            "github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion": (
                "v{version}"
            )
        },
    ),
    "registry": Recipe(
        "github.com/distribution/distribution/v3",
        {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
        {"github.com/distribution/distribution/v3/version.version": "v{version}"},
    ),
    "age": Recipe(
        "filippo.io/age", {"age": "filippo.io/age/cmd/age"}, {"main.Version": "v{version}"}
    ),
    "coredns": Recipe(
        "github.com/coredns/coredns",
        {"coredns": "github.com/coredns/coredns"},
        {},
    ),
    "metrics-server": Recipe(
        "sigs.k8s.io/metrics-server",
        {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
        _kubernetes_stamp("k8s.io/component-base", "k8s.io/client-go/pkg"),
    ),
    "cloud-provider-aws": Recipe(
        "k8s.io/cloud-provider-aws",
        _under("k8s.io/cloud-provider-aws/cmd", "aws-cloud-controller-manager"),
        _kubernetes_stamp("k8s.io/component-base", "k8s.io/client-go/pkg"),
    ),
    "local-path-provisioner": Recipe(
        "github.com/rancher/local-path-provisioner",
        {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
        {"main.VERSION": "v{version}"},
    ),
    "agnhost": Recipe(
        "k8s.io/kubernetes", {"agnhost": "k8s.io/kubernetes/test/images/agnhost"}, {}
    ),
    "busybox": Recipe("", {"busybox": "."}, {}),
    "pause": Recipe("", {"pause": "."}, {}),
}
# Their publishers have an image of them and no executable: whatever the source, they are built.
UNPUBLISHED = frozenset({"cloud-provider-aws/aws-cloud-controller-manager"})


@dataclass(frozen=True)
class Build:
    """One component for one architecture: what it is made from, and where the result is."""

    component: str
    recipe: Recipe = field(compare=False)
    source: Path
    arch: str

    @property
    def version(self) -> str:
        """Of the pinned module, without the `v`."""
        if not self.recipe.module:
            return "1"
        pattern = rf"^(?:require)?\s*{re.escape(self.recipe.module)} v(\S+)"
        found = re.search(pattern, (self.source / "go.mod").read_text(), re.MULTILINE)
        if found is None:
            raise ArtifactError(f"{self.source / 'go.mod'} does not require {self.recipe.module}")
        return found[1]

    @property
    def key(self) -> str:
        files = {file.name: cache.sha256(file) for file in sorted(self.source.iterdir())}
        parts = [go.TOOLCHAIN, self.ldflags, self.recipe.tags, dict(self.recipe.packages), files]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def directory(self) -> Path:
        name = f"{self.component}-{self.version}-{self.key}"
        return cache.root() / "builds" / name / self.arch

    @property
    def ldflags(self) -> str:
        major, minor, *_ = (*self.version.split("."), "0")
        stamp = [
            f"-X {name}={value.format(version=self.version, major=major, minor=minor)}"
            for name, value in self.recipe.stamp.items()
        ]
        static = ["-linkmode external", "-extldflags -static"] if self.recipe.static_c else []
        # No build id: it would name nothing that the hash does not, and differs with cgo's paths.
        return " ".join(["-s", "-w", "-buildid=", *static, *stamp])

    def output(self, program: str) -> str:
        """What `go build -o DIRECTORY/` calls it."""
        package = self.recipe.packages[program]
        if package == ".":
            return self.component
        *_, parent, last = package.split("/")
        return parent if re.fullmatch(r"v\d+", last) else last


def plan(name: str, arch: str, kubernetes: str) -> Build:
    """How to build one artifact, `kubernetes/kubelet`.

    Raises:
        ArtifactError: there is no recipe, or none for that version of Kubernetes.
    """
    component, _, program = name.partition("/")
    recipe = RECIPES.get(component)
    if recipe is None or program not in recipe.packages:
        raise ArtifactError(f"there is no recipe to build {name!r}", hint="see `artifacts list`")
    source = MODULES / component
    if component == "kubernetes":
        source = MODULES / f"kubernetes-{kubernetes}"
        if not source.is_dir():
            raise ArtifactError(
                f"Kubernetes {kubernetes} cannot be built here: there are no pinned modules for it",
                hint=f"versions that are: {', '.join(catalogue().versions)}",
            )
    return Build(component, recipe, source, arch)


def prepare(
    kubernetes: str, wanted: Iterable[tuple[str, str]], progress: Progress
) -> Mapping[tuple[str, str], Ready]:
    """Build what is asked for and not in the cache.

    Args:
        wanted: (artifact or `images`, arch).

    Raises:
        ArtifactError: a recipe or tool is missing, or the compiler failed.
    """
    wanted = tuple(wanted)
    names = {pair for pair in wanted if pair[0] != IMAGES}
    arches = sorted({arch for name, arch in wanted if name == IMAGES})
    lacking = [arch for arch in arches if cache.recorded(_images_path(arch)) is None]
    names_of_images = {
        (program, arch)
        for arch in lacking
        for image in TABLE.values()
        for program in image.programs.values()
    }
    _compile(kubernetes, names | names_of_images, progress)
    for arch in lacking:
        _make_images(arch, progress)
    return {
        (name, arch): _ready_images(arch) if name == IMAGES else _ready(name, arch, kubernetes)
        for name, arch in wanted
    }


def foreseen(kubernetes: str, wanted: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Ready]:
    """What `prepare` would make, to plan with: without a pin, and nothing is built.

    Raises:
        ArtifactError: there is no recipe for it.
    """
    return {
        (name, arch): Ready(
            name, "" if name == IMAGES else plan(name, arch, kubernetes).version, arch, pin=""
        )
        for name, arch in wanted
    }


def _ready(name: str, arch: str, kubernetes: str) -> Ready:
    build = plan(name, arch, kubernetes)
    path = build.directory / name.partition("/")[2]
    pin = cache.recorded(path) or cache.record(path)
    return Ready(name, build.version, arch, pin, local=path)


def _compile(kubernetes: str, names: Iterable[tuple[str, str]], progress: Progress) -> None:
    missing: dict[Build, list[str]] = {}
    for name, arch in sorted(names):
        build, program = plan(name, arch, kubernetes), name.partition("/")[2]
        if cache.recorded(build.directory / program) is None:
            missing.setdefault(build, []).append(program)
    if not missing:
        return
    progress.note(
        "compiling from pinned Go modules: about a quarter of an hour the first time, for everything on"
        f" two cores; kept in {cache.root() / 'builds'}"
    )
    subjects = {build: f"{build.component} {build.version} {build.arch}" for build in missing}
    with progress.phase("build", "compile from pinned Go modules", tuple(subjects.values())):
        compiler = go.toolchain(progress.note)
        for build, programs in missing.items():
            _compile_one(compiler, build, programs, subjects[build], progress)


def _compile_one(
    compiler: Path, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    def waiting() -> None:
        progress.update(subject, "another clusterctl builds it; waiting")

    lock = build.directory.with_name(f"{build.arch}.lock")
    with cache.locked(lock, waiting):
        programs = [p for p in programs if cache.recorded(build.directory / p) is None]
        try:
            if programs:
                _compile_locked(compiler, build, programs, subject, progress)
        except ArtifactError:
            progress.done(subject, "failed", failed=True)
            raise
    progress.done(subject)


def _compile_locked(
    compiler: Path, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    build.directory.mkdir(exist_ok=True)
    progress.update(subject, "compiling")
    c = go.c_compiler(build.arch, progress.note) if build.recipe.static_c else None
    with tempfile.TemporaryDirectory(dir=build.directory, prefix=".go-") as scratch:
        go.build(
            compiler,
            build.source,
            [build.recipe.packages[program] for program in programs],
            Path(scratch),
            arch=build.arch,
            ldflags=build.ldflags,
            tags=build.recipe.tags,
            cgo=c,
            report=lambda text: progress.update(subject, text),
        )
        for program in programs:
            path = build.directory / program
            (Path(scratch) / build.output(program)).replace(path)
            cache.record(path)


def _images_path(arch: str) -> Path:
    """Named by everything that is in the images, but not by what they happen to hash to."""
    keys = {
        program: plan(program, arch, "").key
        for image in TABLE.values()
        for program in image.programs.values()
    }
    code = cache.sha256(Path(oci.__file__)), cache.sha256(Path(__file__))
    parts = repr((sorted(keys.items()), sorted(TABLE.items()), TOOLS, code))
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return cache.root() / "builds" / f"images-{key}" / arch / "images.tar"


def _make_images(arch: str, progress: Progress) -> None:
    out = _images_path(arch)
    lock = out.with_name("images.lock")
    with cache.locked(lock, lambda: progress.note("another clusterctl makes the images; waiting")):
        if cache.recorded(out) is not None:
            return
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".layers-") as scratch:
            layers = _Layers(Path(scratch), arch)
            made = {image.reference: layers.image(image) for image in TABLE.values()}
            oci.write_storage(made, out)
        cache.record(out)


class _Layers:
    """Layers written to a scratch directory, each once."""

    def __init__(self, scratch: Path, arch: str) -> None:
        self.scratch, self.arch = scratch, arch
        self.made: dict[str, oci.Blob] = {}

    def image(self, image: Image) -> oci.Stored:
        layers = [self._layer("base", _BASE)]
        if image.tools:
            links = [oci.File(f"bin/{tool}", "busybox") for tool in TOOLS]
            layers.append(self._layer("tools", links))
        for path, program in image.programs.items():
            build = plan(program, self.arch, "")
            source = build.directory / program.partition("/")[2]
            layers.append(self._layer(program, [oci.File(path, source)]))
        config = {
            "User": image.user,
            "Env": [_PATH],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.description": "built by clusterctl from source"},
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
            **({"Cmd": list(image.command)} if image.command else {}),
        }
        return oci.image(self.arch, layers, config)

    def _layer(self, name: str, files: Iterable[oci.File]) -> oci.Blob:
        if name not in self.made:
            path = self.scratch / name.replace("/", "_")
            self.made[name] = oci.write_layer(files, path)
        return self.made[name]


def _ready_images(arch: str) -> Ready:
    path = _images_path(arch)
    pin = cache.recorded(path) or cache.record(path)
    return Ready(IMAGES, pin[:12], arch, pin, local=path)
