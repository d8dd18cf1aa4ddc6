"""How each program is compiled: pinned Go modules, packages, and variables set at link time.

Every component has a directory in modules/ with go.mod and go.sum. Its programs are kept under
`builds/COMPONENT-VERSION-KEY/ARCH/` in the user's cache, where KEY is a hash of those files and of
the recipe. So a program is compiled once, and again when its pins change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from provision.artifacts import cache, go
from provision.model.errors import ArtifactError

MODULES = Path(__file__).with_name("modules")
_KUBERNETES = "kubernetes-"  # and its version: the only component with several versions


@dataclass(frozen=True)
class Recipe:
    """How one component is compiled.

    Attributes:
        module: the required module with the component's version; empty for programs of clusterctl.
        packages: program -> package; "." is the module in the directory itself.
        stamp: variables set at link time; {version}, {major}, {minor} are filled in.
        static_c: needs a C compiler; C libraries are linked statically.
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
    # Static: a machine may have an older C library and no libseccomp.
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
# Their publishers have only an image. So they are compiled here, whatever the source is.
UNPUBLISHED = frozenset({"cloud-provider-aws/aws-cloud-controller-manager"})


@dataclass(frozen=True)
class Build:
    """One component for one architecture: its sources, and the place of its programs."""

    component: str
    recipe: Recipe = field(compare=False)
    source: Path
    arch: str

    @property
    def version(self) -> str:
        """Version of the pinned module, without the `v`."""
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
        # No build id: it depends on the paths that cgo uses.
        return " ".join(["-s", "-w", "-buildid=", *static, *stamp])

    def output(self, program: str) -> str:
        """Name of the file that `go build -o DIRECTORY/` writes."""
        package = self.recipe.packages[program]
        if package == ".":
            return self.component
        *_, parent, last = package.split("/")
        return parent if re.fullmatch(r"v\d+", last) else last


def plan(name: str, arch: str, kubernetes: str) -> Build:
    """Say how to build one artifact, `kubernetes/kubelet`.

    Raises:
        ArtifactError: there is no recipe, or there are no pinned modules for it.
    """
    component, _, program = name.partition("/")
    recipe = RECIPES.get(component)
    if recipe is None:
        raise ArtifactError(
            f"there is no recipe to build {name}: {component} is unknown",
            hint=f"there are recipes for {', '.join(RECIPES)}",
        )
    if program not in recipe.packages:
        raise ArtifactError(
            f"there is no recipe to build {name}: {component} has no program {program!r}",
            hint=f"programs of {component}: {', '.join(recipe.packages)}",
        )
    source = MODULES / component
    if component == "kubernetes":
        source = MODULES / f"{_KUBERNETES}{kubernetes}"
        if not source.is_dir():
            raise ArtifactError(
                f"Kubernetes {kubernetes} cannot be built: there is no {source}/go.mod",
                hint=f"versions that can be built: {', '.join(buildable())}",
            )
    if not (source / "go.mod").is_file():
        raise ArtifactError(
            f"{name} cannot be built: there is no {source}/go.mod",
            hint=f"in that directory: go mod init, then go get -tool {recipe.packages[program]}@VERSION",
        )
    return Build(component, recipe, source, arch)


def buildable() -> tuple[str, ...]:
    """List the versions of Kubernetes with pinned modules, the newest first."""
    found = [path.name.removeprefix(_KUBERNETES) for path in MODULES.glob(f"{_KUBERNETES}*")]
    return tuple(sorted(found, key=lambda v: [int(part) for part in v.split(".")], reverse=True))
