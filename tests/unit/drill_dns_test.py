"""A DNS query without a resolver: asked of a server of our own."""

import socket
import struct
import subprocess
import threading

import pytest

from provision.drill.dns import ID, query, script


@pytest.fixture
def server():
    """Answers one query on a port of the loopback with a header of the test's choice."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def ask(server, error, answers):
    asked = []

    def answer():
        content, address = server.recvfrom(512)
        asked.append(content)
        server.sendto(
            struct.pack(">6H", ID, 0x8180 | error, 1, answers, 0, 0) + b"\n" * 20, address
        )

    thread = threading.Thread(target=answer)
    thread.start()
    text = script("kubernetes.default.svc.cluster.local", "127.0.0.1")
    code = subprocess.call(["sh", "-c", text.replace("/53", f"/{server.getsockname()[1]}")])
    thread.join()
    return code, asked[0]


def test_the_whole_query_arrives_in_one_datagram(server):
    code, asked = ask(server, error=0, answers=1)
    assert code == 0
    assert asked == query("kubernetes.default.svc.cluster.local")
    assert b"\x0akubernetes" in asked


@pytest.mark.parametrize(("error", "answers"), [(3, 0), (2, 1), (0, 0)])
def test_an_error_or_no_address_is_a_failure(server, error, answers):
    assert ask(server, error, answers)[0] != 0


def test_no_answer_is_a_failure():
    assert subprocess.call(["sh", "-c", script("a.b", "127.0.0.1")]) != 0
