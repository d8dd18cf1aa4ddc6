"""The same work on several machines at once, where threads do it and not pyinfra."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from provision.local.progress import Progress
from provision.model.errors import MachinesError


def on_all(
    names: tuple[str, ...], work: Callable[[str, threading.Event], None], progress: Progress
) -> None:
    """Do the work on all machines in parallel. A failure on one does not stop the others."""
    failures: dict[str, MachinesError] = {}
    cancelled = threading.Event()

    def one(name: str) -> None:
        try:
            work(name, cancelled)
        except MachinesError as error:
            failures[name] = error
            progress.done(name, error.message, failed=True)
        else:
            progress.done(name)

    with ThreadPoolExecutor(max_workers=8) as pool:
        try:
            list(pool.map(one, names))
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        lines = "\n".join(f"  {name}: {failures[name].message}" for name in sorted(failures))
        hints = [error.hint for error in failures.values() if error.hint]
        raise MachinesError(
            f"{len(failures)} of {len(names)} machines could not be made:\n{lines}",
            hint=hints[0] if hints else "run the same command again: it makes what is missing",
        )
