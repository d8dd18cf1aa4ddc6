"""The shell programs of health checks, against real listeners."""

import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from provision.desired import health


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1]
        listening.shutdown()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def succeeds(program):
    shell = f"systemctl() {{ :; }}; {program}"
    return subprocess.run(["sh", "-c", shell], check=False, capture_output=True).returncode == 0


def test_an_endpoint_is_healthy_only_if_it_answers_200(server):
    assert succeeds(health.http(server, "/healthz"))
    assert not succeeds(health.http(server, "/other"))
    assert not succeeds(health.http(free_port(), "/healthz"))


def test_a_listener_is_healthy_only_if_it_accepts_connections(server):
    assert succeeds(health.listens("x.service", "127.0.0.1", server))
    assert not succeeds(health.listens("x.service", "127.0.0.1", free_port()))


@pytest.mark.parametrize(("ago", "well"), [(1, False), (2.5, True), (1000, True)])
def test_a_unit_without_an_answer_must_run_for_a_while(ago, well):
    since = f"$(awk '{{ printf \"%d\", ($1 - {ago}) * 1000000 }}' /proc/uptime)"
    shell = f"systemctl() {{ [ $1 = is-active ] || echo {since}; }}; {health.runs_for('x', 2)}"
    done = subprocess.run(["sh", "-c", shell], check=False)
    assert (done.returncode == 0) is well
