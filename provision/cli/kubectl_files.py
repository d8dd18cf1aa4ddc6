"""The files of this computer that a kubectl command names. clusterctl sends them to the master.

On the master, a temporary directory has each file under its whole path. kubectl starts there in the
copy of the current directory. So relative paths need no change.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from provision.model.commands import clusterctl
from provision.model.errors import RefusedError

# Options of all commands whose next argument is their value, and so not the command.
_VALUES = frozenset(
    [
        "-n",
        "--namespace",
        "--context",
        "--cluster",
        "--user",
        "-s",
        "--server",
        "--token",
        "--as",
        "--as-group",
        "--as-uid",
        "--request-timeout",
        "--cache-dir",
        "--tls-server-name",
        "-v",
        "--v",
        "--username",
        "--password",
        "-o",
        "--output",
        "-l",
        "--selector",
        "-c",
        "--container",
        "--field-selector",
        "--kubeconfig",
    ]
)
_MANIFESTS = ("-f", "--filename")
_KUSTOMIZE = ("-k", "--kustomize")
_PAIRS = ("--from-file",)
_SINGLE = (
    *("--from-env-file", "--patch-file", "--cert", "--key", "--kubeconfig", "--custom"),
    *("--certificate-authority", "--client-certificate", "--client-key"),
)
_TEMPLATES = ("go-template-file=", "jsonpath-file=", "custom-columns-file=", "templatefile=")
_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class Named:
    """Where a path begins in an argument.

    Attributes:
        argument: its index.
        start: index of the path's first character.
        path: the path as the operator typed it.
    """

    argument: int
    start: int
    path: str


def named(arguments: Sequence[str]) -> tuple[list[Named], set[Path]]:
    """Find the paths in the arguments of kubectl, and the files of this computer that it needs.

    Raises:
        RefusedError: kubectl would write a file on the master.
    """
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    words = list(_words(own))
    command = own[words[0]] if words else ""
    paths: list[Named] = []
    files: set[Path] = set()
    for index, start, option in _options(own):
        value = own[index][start:]
        if option in _MANIFESTS and command not in {"logs", "log"}:
            for at, part in _split(value):
                if part != "-" and not part.startswith(("http://", "https://")):
                    paths.append(Named(index, start + at, part))
                    files |= set(_manifests(part, deep={"-R", "--recursive"} & set(own)))
        elif option in _KUSTOMIZE:
            paths.append(Named(index, start, value))
            files |= _kustomization(Path(value))
        elif option in _PAIRS:
            at = value.rfind("=") + 1
            paths.append(Named(index, start + at, value[at:]))
            files |= set(_plain(Path(value[at:])))
        elif option in _SINGLE:
            paths.append(Named(index, start, value))
            files |= set(_plain(Path(value)))
        elif option in {"-o", "--output"} and value.startswith(_TEMPLATES):
            at = value.index("=") + 1
            paths.append(Named(index, start + at, value[at:]))
            files |= set(_plain(Path(value[at:])))
    if command == "kustomize" and len(words) > 1:
        paths.append(Named(words[1], 0, own[words[1]]))
        files |= _kustomization(Path(own[words[1]]))
    if command == "cp" and len(words) == 3:
        source, target = words[1], words[2]
        if _in_pod(own[source]) and not _in_pod(own[target]):
            message = "kubectl cp from a pod would write the file on the master"
            raise RefusedError(
                message,
                hint="use your own kubectl, with a kubeconfig: "
                f"{clusterctl('kubeconfig', 'INVENTORY', '-o', 'FILE')}",
            )
        paths.append(Named(source, 0, own[source]))
        files |= {p for p in (Path(own[source]), *Path(own[source]).rglob("*")) if p.is_file()}
    return paths, {Path(os.path.abspath(file)) for file in files}  # noqa: PTH100  keeps symlinks


def rewritten(arguments: Sequence[str], paths: Iterable[Named], root: str) -> list[str]:
    """Give the arguments, with `root` before each absolute path."""
    result = list(arguments)
    for each in sorted(paths, key=lambda n: -n.start):
        if each.path.startswith("/"):
            text = result[each.argument]
            result[each.argument] = f"{text[: each.start]}{root}{text[each.start :]}"
    return result


def pack(files: Iterable[Path], out: IO[bytes]) -> None:
    """Write a tar of the files under their whole paths, and of the current directory."""
    with tarfile.open(fileobj=out, mode="w|", dereference=True) as tar:
        tar.add(Path.cwd(), recursive=False)
        for file in sorted(files):
            tar.add(file, recursive=False)


def _options(own: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(argument, where the value begins in it, option) of each option with a value."""
    short = ("-f", "-k", "-o")
    index = 0
    while index < len(own):
        text = own[index]
        name, sign, _ = text.partition("=")
        known = (*_MANIFESTS, *_KUSTOMIZE, *_PAIRS, *_SINGLE, "-o", "--output")
        if name in known and sign:
            yield index, len(name) + 1, name
        elif text in known and index + 1 < len(own):
            index += 1
            yield index, 0, text
        elif text[:2] in short and not text.startswith("--") and len(text) > 2:
            yield index, 2, text[:2]
        index += 1


def _words(own: Sequence[str]) -> Iterator[int]:
    """Indexes of the arguments that are neither options nor the value of a general option."""
    skip = False
    for index, text in enumerate(own):
        if skip:
            skip = False
        elif text.startswith("-") and text != "-":
            skip = text in _VALUES
        else:
            yield index


def _split(value: str) -> Iterator[tuple[int, str]]:
    at = 0
    for part in value.split(","):
        yield at, part
        at += len(part) + 1


def _manifests(text: str, *, deep: object) -> Iterator[Path]:
    for path in map(Path, glob.glob(text) or [text]):  # noqa: PTH207  patterns may be absolute
        if path.is_dir():
            found = path.rglob("*") if deep else path.glob("*")
            yield from (p for p in found if p.is_file() and p.suffix in _SUFFIXES)
        elif path.is_file():
            yield path


def _plain(path: Path) -> Iterator[Path]:
    """Give a file, or the files of a directory."""
    if path.is_dir():
        yield from (p for p in path.iterdir() if p.is_file())
    elif path.is_file():
        yield path


def _kustomization(folder: Path, seen: frozenset[Path] = frozenset()) -> set[Path]:
    """Give the kustomization of a directory, with all files and directories that it names."""
    here = folder.resolve()
    files: set[Path] = set()
    if here in seen:
        return files
    for name in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
        file = folder / name
        if not file.is_file():
            continue
        files.add(file)
        try:
            content = yaml.safe_load(file.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue  # kubectl says what is wrong with it
        for text in _texts(content):
            for part in {text, text.rpartition("=")[2]}:
                path = folder / part if part and len(part) < 1024 and "\n" not in part else None
                if path and path.is_dir():
                    files |= _kustomization(path, seen | {here})
                elif path and path.is_file():
                    files.add(path)
    return files


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _in_pod(text: str) -> bool:
    return ":" in text and not text.startswith((".", "/"))
