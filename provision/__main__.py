from gevent import monkey

monkey.patch_all()

import signal
import sys

import gevent


def run() -> None:
    """The console script `clusterctl`; the command line is imported after the patch."""
    _unwind_when_stopped()
    from provision.cli.app import app, main  # noqa: PLC0415
    from provision.drill import command  # noqa: PLC0415

    command.register(app)
    sys.exit(main())


def _unwind_when_stopped() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP unwind the command, as an error would.

    Python raises in whichever greenlet runs. That may be a connection's, and paramiko keeps what is
    raised there to itself.
    """
    command = gevent.getcurrent()

    def stop(number: int, _: object) -> None:
        interrupted = number == signal.SIGINT
        reason = KeyboardInterrupt() if interrupted else SystemExit(128 + number)
        if gevent.getcurrent() is command:
            raise reason
        gevent.kill(command, reason)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever started us with nohup, or in the background, does not want it to be heard.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


if __name__ == "__main__":
    run()
