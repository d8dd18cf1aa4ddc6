"""Health checks in shell. bash opens the connection, because a machine may have no curl."""

from __future__ import annotations

from shlex import quote


def http(port: int, path: str) -> str:
    """Succeed if this port on the loopback address answers 200 for `path`."""
    program = (
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && "
        "read -r -t 3 status <&3 && echo \"$status\" && [[ $status == *' 200 '* ]]"
    )
    return f"bash -c {quote(program)}"


def listens(unit: str, address: str, port: int) -> str:
    """Succeed if the unit runs and accepts a connection."""
    return f"systemctl is-active --quiet {unit} && bash -c ': <>/dev/tcp/{address}/{port}'"


def runs_for(unit: str, seconds: int) -> str:
    """Succeed if the unit has run for this long. For programs without a health endpoint."""
    since = f"$(systemctl show -p ActiveEnterTimestampMonotonic --value {unit})"
    return (
        f"systemctl is-active --quiet {unit} && "
        # Its own start is now. In a container, /proc/uptime may count from the container's start.
        f"awk -v since={since} '{{ sub(/.*\\) /, \"\"); exit $20 / 100 < since / 1000000 + {seconds} }}' "
        "/proc/self/stat"
    )
