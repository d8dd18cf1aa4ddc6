"""The files of this computer that a kubectl command names. clusterctl sends them to the master.

On the master, a temporary directory has each file under its whole path. kubectl starts there in the
copy of the current directory. So relative paths need no change.
"""

from __future__ import annotations

import glob
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
        # Of `cp` and `kustomize`.
        *("--retries", "-e", "--env", "--load-restrictor", "--network-name", "--mount"),
        *("--helm-command", "--helm-api-versions", "--helm-kube-version"),
    ]
)
_MANIFESTS = ("-f", "--filename")
_KUSTOMIZE = ("-k", "--kustomize")
_PAIRS = ("--from-file", "--from-env-file")
_SINGLE = (
    *("--patch-file", "--cert", "--key", "--kubeconfig", "--custom"),
    *("--certificate-authority", "--client-certificate", "--client-key"),
)
_TEMPLATES = ("go-template-file=", "jsonpath-file=", "custom-columns-file=", "templatefile=")
_SUFFIXES = (".json", ".yaml", ".yml")
_WRITES = {"kustomize": ("-o", "--output"), "cluster-info": ("--output-directory",)}
_STDIN = ("-", "/dev/stdin")
_URL = re.compile(r"https?://")
# What kustomize fetches with git or over HTTP.
_REMOTE = re.compile(
    r"(https?|ssh|git)://|git::|gh:|github\.com[/:]|[\w.-]+@[\w.-]+[:/]", re.IGNORECASE
)
# A short option with a value, perhaps after short options without one: -Rf dir.
_SHORT = re.compile(r"(-[ARhiqtw]*([fko])=?)(.*)", re.DOTALL)
LIMIT = 64 << 20  # bytes of all files: they go into the master's memory
OWN_KUBECTL = (
    "use your own kubectl, with a kubeconfig: "
    f"{clusterctl('kubeconfig', 'INVENTORY', '-o', 'FILE')}"
)


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
        RefusedError: a path does not exist on this computer, or kubectl would write a file on the
            master.
    """
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    paths: list[Named] = []
    files: set[Path] = set()
    for each, find in _paths(own):
        if each.path in _STDIN:
            continue
        if not (os.path.exists(each.path) or glob.glob(each.path)):  # noqa: PTH110, PTH207
            message = f"there is no file {each.path}"
            raise RefusedError(
                message, hint="kubectl on the master gets only files of this computer"
            )
        paths.append(each)
        files |= set(find(each.path))
    return paths, {Path(os.path.abspath(file)) for file in files}  # noqa: PTH100  keeps symlinks


def _paths(own: Sequence[str]) -> Iterator[tuple[Named, Callable[[str], Iterable[Path]]]]:
    """Each path in the arguments, and the function that finds its files."""
    words = list(_words(own))
    command = own[words[0]] if words else ""
    for index, start, option in _options(own):
        value = own[index][start:]
        if option in _WRITES.get(command, ()) and value != "-":
            message = f"kubectl {command} {option} would write {value} on the master"
            raise RefusedError(message, hint=f"leave out {option}, and redirect the output: > FILE")
        if option in _MANIFESTS and command not in {"logs", "log"}:
            for at, part in _split(value):
                if not _URL.match(part):
                    yield Named(index, start + at, part), _manifests_of(own)
        elif option in _KUSTOMIZE:
            yield from _kustomized(index, start, value)
        elif option in _PAIRS:
            for at, part in _split(value):
                key = part.rfind("=") + 1
                yield Named(index, start + at + key, part[key:]), _plain
        elif option in _SINGLE:
            yield Named(index, start, value), _plain
        elif option in {"-o", "--output"} and value.startswith(_TEMPLATES):
            at = value.index("=") + 1
            yield Named(index, start + at, value[at:]), _plain
    if command == "kustomize" and len(words) > 1:
        yield from _kustomized(words[1], 0, own[words[1]])
    if command == "cp" and len(words) > 1:
        yield Named(words[1], 0, _copied(own, words)), partial(_plain, deep=True)


def rewritten(arguments: Sequence[str], paths: Iterable[Named], root: str) -> list[str]:
    """Give the arguments, with `root` before each absolute path."""
    result = list(arguments)
    for each in sorted(paths, key=lambda n: -n.start):
        if each.path.startswith("/"):
            text = result[each.argument]
            result[each.argument] = f"{text[: each.start]}{root}{text[each.start :]}"
    return result


def pack(files: Iterable[Path], out: IO[bytes]) -> None:
    """Write a tar of the files under their whole paths, and of the current directory.

    Raises:
        RefusedError: the files are larger than `LIMIT`.
    """
    left = LIMIT
    with tarfile.open(fileobj=out, mode="w|", dereference=True) as tar:
        tar.add(Path.cwd(), recursive=False)
        for file in sorted(files):
            entry = tar.gettarinfo(file)
            with file.open("rb") as source:
                content: IO[bytes] = source
                if entry.isfifo():  # such as `<(command)` of the shell
                    content = io.BytesIO(source.read(left + 1))
                    entry.type, entry.size = tarfile.REGTYPE, len(content.getbuffer())
                left -= entry.size
                if left < 0:
                    message = f"the files are larger than {LIMIT >> 20} MiB; nothing was sent"
                    raise RefusedError(message, hint=OWN_KUBECTL)
                tar.addfile(entry, content)


def _options(own: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(argument, where the value begins in it, option) of each option with a value."""
    known = (*_MANIFESTS, *_KUSTOMIZE, *_PAIRS, *_SINGLE, "-o", "--output", "--output-directory")
    index = 0
    while index < len(own):
        text = own[index]
        name, sign, _ = text.partition("=")
        short = _SHORT.fullmatch(text)
        if name in known and sign:
            yield index, len(name) + 1, name
        elif short and short[3]:
            yield index, len(short[1]), f"-{short[2]}"
        elif (text in known or short) and index + 1 < len(own):
            index += 1
            yield index, 0, f"-{short[2]}" if short else text
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


def _manifests_of(own: Sequence[str]) -> Callable[[str], Iterable[Path]]:
    """Give the function that finds the manifests of a path, for these arguments."""
    deep = any(text.startswith("--recursive") or re.match("-[Ahiqtw]*R", text) for text in own)
    return partial(_manifests, deep=deep)


def _manifests(text: str, *, deep: bool) -> Iterator[Path]:
    for path in map(Path, glob.glob(text) or [text]):  # noqa: PTH207  patterns may be absolute
        found = _plain(str(path), deep=deep)
        yield from (p for p in found if p.suffix in _SUFFIXES) if path.is_dir() else found


def _plain(text: str, *, deep: bool = False) -> Iterator[Path]:
    """Give a file, or the files of a directory; with `deep`, also those of its directories."""
    path = Path(text)
    if path.is_dir():
        yield from (p for p in path.glob("**/*" if deep else "*") if p.is_file())
    elif _readable(path):
        yield path


def _readable(path: Path) -> bool:
    return path.is_file() or path.is_fifo()


def _copied(own: Sequence[str], words: Sequence[int]) -> str:
    """Give the file of this computer that `cp` copies into a pod."""
    if len(words) != 3:
        message = "clusterctl does not know which file of this computer kubectl cp means"
        raise RefusedError(message, hint="write: kubectl cp [OPTION=VALUE ...] FILE POD:PATH")
    source, target = own[words[1]], own[words[2]]
    if _in_pod(source) and not _in_pod(target):
        message = "kubectl cp from a pod would write the file on the master"
        raise RefusedError(message, hint=OWN_KUBECTL)
    return source


def _kustomized(
    index: int, start: int, text: str
) -> Iterator[tuple[Named, Callable[[str], Iterable[Path]]]]:
    if os.path.isdir(text) or not _REMOTE.match(text):  # noqa: PTH112
        yield Named(index, start, text), lambda folder: _kustomization(Path(folder))


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
                path = folder / part
                # Not Path.is_dir: it raises if the text is too long for a path.
                if part and os.path.isdir(path):  # noqa: PTH112
                    files |= _kustomization(path, seen | {here})
                elif part and os.path.isfile(path):  # noqa: PTH113
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
