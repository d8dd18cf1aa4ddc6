"""Carry steps out in parallel, each as soon as the things that it needs exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from botocore.exceptions import WaiterError

from provision.aws.account import Account, code_of, in_words, patiently
from provision.local.progress import Progress
from provision.machines.ec2.keys import Key
from provision.machines.ec2.model import Step, at, resolved
from provision.model.errors import MachinesError

AT_ONCE = 8  # EC2 throttles more calls that change something
_WAITS_ON = {
    "instance_running": "InstanceIds",
    "instance_stopped": "InstanceIds",
    "instance_terminated": "InstanceIds",
    "volume_available": "VolumeIds",
}


_ENDED = {"shutting-down", "terminated"}


def apply(
    account: Account,
    steps: Sequence[Step],
    known: Mapping[Key, str],
    progress: Progress,
    spent: Callable[[Key], None],
) -> None:
    """Carry all steps out.

    Args:
        known: key -> id of the things that exist.
        spent: called with the key of an instance whose ClientToken must not be used again. For a
            day AWS would answer with that instance, even though it has ended.

    Raises:
        MachinesError: names every step that failed. New things stay; the next run continues.
    """
    ids = dict(known)
    waiting = {step.key: step for step in steps}
    failures: list[MachinesError] = []
    running: dict[Future[str], Step] = {}
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        while waiting or running:
            ready = [s for s in waiting.values() if not s.needs & _unfinished(waiting, running)]
            for step in ready if not failures else ():
                del waiting[step.key]
                progress.update(str(step.key), step.detail or "make")
                running[pool.submit(_carry_out, account, step, dict(ids), spent)] = step
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                step = running.pop(future)
                error = future.exception()
                if isinstance(error, MachinesError):
                    failures.append(error)
                    progress.done(str(step.key), error.message, failed=True)
                    continue
                if made := future.result():
                    ids[step.key] = made
                progress.done(str(step.key))
    if failures:
        first = failures[0]
        if len(failures) == 1:
            raise first
        lines = "\n".join(f"  {failure.message}" for failure in failures)
        raise MachinesError(f"{len(failures)} calls failed:\n{lines}", hint=first.hint)


def _unfinished(waiting: Mapping[Key, Step], running: Mapping[Future[str], Step]) -> set[Key]:
    return {*waiting, *(step.key for step in running.values())}


def _carry_out(
    account: Account, step: Step, ids: Mapping[Key, str], spent: Callable[[Key], None]
) -> str:
    """Make the call, and return the id of what it made.

    Raises:
        MachinesError: AWS refuses, or the new instance has ended already.
    """
    waiter, on = step.once
    try:
        if waiter:
            account.wait(waiter, {_WAITS_ON[waiter]: [ids[on] if isinstance(on, Key) else on]})
        request = resolved(step.request, ids)
        answer = patiently(lambda: account.call(step.service, step.action, **request))
    except Exception as error:
        if (
            isinstance(error, WaiterError)
            and isinstance(on, Key)
            and waiter == "instance_running"
            and (ended := _ended(error.last_response))
        ):
            spent(on)
            raise _of_ended(on, ended) from error
        if code_of(error) == "IdempotentParameterMismatch":
            spent(step.key)
        raise in_words(error, str(step.key), step.action) from error
    if ended := _ended({"Reservations": [answer]}):
        spent(step.key)
        raise _of_ended(step.key, ended)
    return at(answer, step.gives) if step.gives else ""


def _ended(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find the first instance of an answer that has ended."""
    found = (i for r in answer.get("Reservations", ()) for i in r.get("Instances", ()))
    return next((i for i in found if i.get("State", {}).get("Name") in _ENDED), None)


def _of_ended(key: Key, instance: Mapping[str, Any]) -> MachinesError:
    why = instance.get("StateReason", {}).get("Message", "AWS does not say why")
    return MachinesError(
        f"{key} ({instance['InstanceId']}) has ended: {why}",
        hint="remove the cause, then run the same command again: it makes another instance",
    )
