"""An inventory file -> its names; the file runs as with pyinfra."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from provision.inventory.draft import GROUPS
from provision.inventory.wording import plain
from provision.model.commands import clusterctl
from provision.model.errors import Finding, InventoryError

_PASSWORD = re.compile(r"(pass(word|wd|phrase)?|secret|token).*", re.I | re.S)


@dataclass(frozen=True)
class Executed:
    """What an inventory file defines, values made plain.

    Attributes:
        text: of the file.
        groups: masters, workers and etcd, in the file's order (it matters where data differ).
        cluster: the dict of that name; None when there is none.
        others: other lists, which only pyinfra uses as groups: name -> hosts.
        dicts: names of other dicts.
        findings: values that are not data.
    """

    text: str
    groups: Mapping[str, object]
    cluster: object
    others: Mapping[str, frozenset[str]]
    dicts: tuple[str, ...]
    findings: tuple[Finding, ...]


def execute(path: Path) -> Executed:
    """Run the file as pyinfra does.

    Raises:
        InventoryError: it cannot be read, is not Python, or raises.
    """
    try:
        text = path.read_text("utf-8-sig")  # as Python: a byte order mark may come first
        code = compile(text, str(path), "exec", dont_inherit=True)
    except FileNotFoundError:
        raise _error(
            path,
            "there is no such file",
            f"this makes a new one: {clusterctl('init')} > {quote(str(path))}",
        ) from None
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}", "check its permissions") from None
    except SyntaxError as error:
        line = f": {_without_secrets(error.text.strip())}" if error.text else ""
        what = f"{_without_secrets(error.msg)}{line}"
        raise _error(
            f"{path}:{error.lineno}", what, "correct the line; the file is Python"
        ) from None
    except (ValueError, RecursionError, MemoryError):  # not UTF-8, NUL bytes, nested too deep
        raise _error(path, "is not a Python file", "write Python, in UTF-8") from None
    names: dict[str, object] = {"__file__": str(path)}
    try:
        with _importable(path.parent):
            exec(code, names)  # noqa: S102  the inventory is the operator's program
        return _select(text, names)
    except ImportError as error:
        what = f"{type(error).__name__}: {_without_secrets(_text(error))}"
        hint = (
            f"put the module into {path.parent}, or install it for the Python that runs "
            f"clusterctl: {sys.executable}"
        )
        raise _error(_place(path, error), what, hint) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the operator's code raises
        what = f"{type(error).__name__}: {_without_secrets(_text(error))}"
        raise _error(_place(path, error), what, "correct the line; the file is Python") from None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the block import modules from the folder, as pyinfra does.

    Python writes no files into the folder, and another inventory gets its own modules.
    """
    before, bytecode = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        with suppress(ValueError):  # the inventory may change the path itself
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            installed = origin and "site-packages" in Path(origin).parts
            if origin and not installed and Path(origin).is_relative_to(folder):
                del sys.modules[name]


def _place(path: Path, error: BaseException) -> Path | str:
    """Give the line of the inventory that caused an error."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1].lineno}" if lines else path


def _select(text: str, names: Mapping[str, object]) -> Executed:
    findings: list[Finding] = []
    public = {name: value for name, value in names.items() if not name.startswith("_")}
    groups = {n: plain(v, n, findings) for n, v in public.items() if n in GROUPS}
    cluster = plain(public["cluster"], "cluster", findings) if "cluster" in public else None
    rest = {n: v for n, v in public.items() if n not in {*GROUPS, "cluster"}}
    others = {name: frozenset(host_names(value)) for name, value in rest.items()}
    dicts = tuple(name for name, value in rest.items() if isinstance(value, dict))
    return Executed(text, groups, cluster, others, dicts, tuple(findings))


def host_names(group: object) -> list[str]:
    """The names in a group, a list or (list, data); none in another value."""
    items = group[0] if isinstance(group, tuple) and group else group
    if not isinstance(items, list):
        return []
    firsts = (item[0] if isinstance(item, tuple) and item else item for item in items)
    return [name for name in firsts if isinstance(name, str)]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an exception class of the file's own may be broken
        return ""


def _without_secrets(line: str) -> str:
    """Cut a line of code after the first word that a secret may follow."""
    return _PASSWORD.sub(r"\1 ...", line)[:200]


def _error(where: Path | str, what: str, hint: str = "") -> InventoryError:
    return InventoryError("the inventory cannot be read", [Finding(str(where), what, hint)])
