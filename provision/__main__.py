"""The console script `clusterctl`, and `python -m provision`."""

import signal
import sys


def run() -> None:
    """Run the command line. Everything that it needs is imported after gevent's patch."""
    try:
        code = _run()
    except KeyboardInterrupt:  # before the command has begun
        code = 130
    sys.exit(code)


def _run() -> int:
    if not _asks_for_help(sys.argv[1:]):
        # Before anything imports threading, socket or ssl.
        from gevent import events, monkey  # noqa: PLC0415

        # For each module gevent would look in all installed packages for listeners: 0.3 s.
        events.notify_and_call_entry_points = events.notify
        monkey.patch_all()
        _unwind_when_stopped()
        from provision.cli.problems import quiet_greenlets  # noqa: PLC0415

        quiet_greenlets()
    from provision.cli.app import app, main  # noqa: PLC0415
    from provision.drill import command  # noqa: PLC0415

    # The drill uses the command line, so the command line cannot import the drill.
    app.add_typer(command.app)
    return main()


def _asks_for_help(arguments: list[str]) -> bool:
    """Whether the command line only prints text: then it needs no gevent, which takes long."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return not own or own[-1] in {"-h", "--help", "--version"}


def _unwind_when_stopped() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP unwind the command, as an error does.

    Python raises in the greenlet that runs at that moment. That may be a connection's greenlet,
    and paramiko keeps such exceptions to itself.
    """
    import gevent  # noqa: PLC0415

    command = gevent.getcurrent()

    def stop(number: int, _: object) -> None:
        interrupted = number == signal.SIGINT
        reason = KeyboardInterrupt() if interrupted else SystemExit(128 + number)
        if gevent.getcurrent() is command:
            raise reason
        gevent.kill(command, reason)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A command that was started with nohup, or in the background, ignores the signal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


if __name__ == "__main__":
    run()
