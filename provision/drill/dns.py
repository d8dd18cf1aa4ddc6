"""A DNS query as a shell script that needs nothing but bash and coreutils."""

from __future__ import annotations

import struct
from shlex import quote

ID = 0x6463
RECURSION = 0x0100
A, INTERNET = 1, 1


def query(name: str) -> bytes:
    """The DNS message that asks for the IPv4 address of a name (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack(">6H", ID, RECURSION, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack(">2H", A, INTERNET)


def script(name: str, server: str) -> str:
    """The script; it succeeds if the server answers without an error, with at least one address."""
    octets = "".join(f"\\{byte:03o}" for byte in query(name))
    # The script reads two bytes of the answer's header: 3 (low half: the error) and 7 (number of
    # addresses).
    inner = (
        # bash's own printf would send the datagram in pieces, one for each byte that is a newline.
        f"exec 3<>/dev/udp/{server}/53; env printf '{octets}' >&3; "
        "read -r _ _ _ error _ _ _ count _ < <(head -c 12 <&3 | od -An -v -tu1); "
        '[ "$((error & 15))" = 0 ] && [ "$count" -gt 0 ]'
    )
    return f"timeout 1 bash -c {quote(inner)}"
