"""The probes' server: right answers to good requests, and bounds for bad clients."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from unstuck.probes import server as server_module
from unstuck.probes.server import MOST_BYTES, MOST_CLIENTS, Page, Server

BODY = b'{"ok": true}\n'
HUGE = b"x" * 8_000_000

Port = int


def live() -> Page:
    """What is answered at once."""
    return Page(HTTPStatus.OK, BODY)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    """A server that serves in a thread."""
    monkeypatch.setattr(server_module, "CLIENT_SECONDS", 1.0)
    monkeypatch.setattr(server_module, "LINGER_SECONDS", 0.3)
    server, over = Server(routes()), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    server.serve(listener)

    def serve() -> None:
        while not over.is_set():
            server.turn(0.05)
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(listener.getsockname()[1])
    over.set()
    thread.join()


def routes() -> Any:
    """Two pages."""
    return {
        "/live": live,
        "/huge": lambda: Page(HTTPStatus.OK, HUGE, "text/plain"),
        "/broken": lambda: Page(HTTPStatus.OK, broken_parts(), "text/plain"),
    }


def connect(port: Port) -> socket.socket:
    """A client that waits for five seconds at most."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def answer_to(port: Port, request: bytes) -> bytes:
    """All that the server says to it."""
    with connect(port) as client:
        client.sendall(request)
        return everything(client)


def everything(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while part := client.recv(65_536):
        received += part
    return received


def status_of(port: Port, request: bytes) -> int:
    """The status of the answer."""
    return int(answer_to(port, request).split(b" ")[1])


def is_well(port: Port) -> bool:
    """Whether somebody else gets an answer, and soon."""
    before = time.monotonic()
    assert status_of(port, b"GET /live HTTP/1.1\r\n\r\n") == 200
    return time.monotonic() - before < 3


def test_a_page(port: Port) -> None:
    """Head and body; a query is ignored."""
    head, _, body = answer_to(
        port, b"GET /live?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    ).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 13" in head
    assert b"Connection: close" in head
    assert body == BODY


def test_head(port: Port) -> None:
    """The same without its body."""
    answer = answer_to(port, b"HEAD /live HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 13" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /live/ HTTP/1.1\r\n\r\n", 404),
        (b"POST /live HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /nothing HTTP/1.1\r\n\r\n", 405),
        (b"GET /live\r\n\r\n", 400),
        (b"GET  /live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live HTTP/2\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nX: " + b"y" * MOST_BYTES, 400),
        (b"z" * MOST_BYTES, 400),
    ],
)
def test_bad_requests(port: Port, request_: bytes, status: int) -> None:
    """Each gets a status that says what is wrong, and nobody else notices."""
    assert status_of(port, request_) == status
    assert is_well(port)


def test_what_is_allowed(port: Port) -> None:
    """405 says so."""
    assert b"Allow: GET, HEAD" in answer_to(port, b"PUT /live HTTP/1.1\r\n\r\n")


def test_a_request_in_pieces(port: Port) -> None:
    """Byte by byte."""
    with connect(port) as client:
        for byte in b"GET /live HTTP/1.1\r\n\r\n":
            client.send(bytes([byte]))
        assert everything(client).endswith(BODY)


def test_a_client_that_says_nothing(port: Port) -> None:
    """Others are answered meanwhile; it is let go."""
    with connect(port) as client:
        assert is_well(port)
        assert everything(client) == b""


def test_a_client_that_drips(port: Port) -> None:
    """However long it goes on, its time ends."""
    with connect(port) as client:
        assert _drip(client, seconds=10) < 8


def _drip(client: socket.socket, seconds: float) -> float:
    """Send a byte now and then; how long that went well."""
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        try:
            client.send(b"G")
        except OSError:
            break
        time.sleep(0.1)
    return spent


def test_a_client_that_does_not_read(port: Port) -> None:
    """A large page waits for it alone, and not for long."""
    with connect(port) as client:
        client.sendall(b"GET /huge HTTP/1.1\r\n\r\n")
        assert is_well(port)
        time.sleep(1.5)
        received = b""
        with contextlib.suppress(OSError):
            received = everything(client)
        assert len(received) < len(HUGE)


def broken_parts() -> Iterator[bytes]:
    """A page that cannot be made to its end."""
    yield b"part;"
    raise RuntimeError("no more")


def test_a_page_in_parts_lets_others_pass() -> None:
    """They are answered between two of them, and it is whole in the end."""
    made: list[bytes] = []

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            made.append(b"part;")
            yield made[-1]

    pages = {"/parts": lambda: Page(HTTPStatus.OK, parts()), "/live": live}
    server, listener = Server(pages), socket.create_server(("127.0.0.1", 0))
    server.serve(listener)
    first, second = (connect(listener.getsockname()[1]) for _ in range(2))
    with first, second, contextlib.closing(server):
        first.sendall(b"GET /parts HTTP/1.1\r\n\r\n")
        while not made:
            server.turn(0.01)
        second.sendall(b"GET /live HTTP/1.1\r\n\r\n")
        turn_until_readable(server, second)

        assert second.recv(65_536).endswith(BODY)
        assert len(made) < 100
        while len(made) < 100:
            server.turn(0.01)
        for _ in range(5):
            server.turn(0.01)
        head, _, body = everything(first).partition(b"\r\n\r\n")
    assert body == b"".join(made)
    assert b"Content-Length" not in head


def turn_until_readable(server: Server, client: socket.socket) -> None:
    """Have it do what it has to, until there is an answer."""
    while not select.select([client], [], [], 0)[0]:
        server.turn(0.01)


def test_of_a_page_in_parts_the_head_alone(port: Port) -> None:
    """For who asks for no more, nothing else is made."""
    answer = answer_to(port, b"HEAD /broken HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_a_page_that_cannot_be_made_costs_nobody_else(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, its client sees that there is more, and the server goes on."""
    with pytest.raises(ConnectionResetError):
        answer_to(port, b"GET /broken HTTP/1.1\r\n\r\n")
    assert is_well(port)
    assert "An answer could not be made" in caplog.text


def test_a_client_that_reads_slowly_gets_all(port: Port) -> None:
    """As far as its time goes."""
    answer = answer_to(port, b"GET /huge HTTP/1.1\r\n\r\n")
    assert answer.endswith(HUGE)


def test_a_client_that_leaves_in_the_middle(port: Port) -> None:
    """With and without a goodbye."""
    for rude in (False, True):
        with connect(port) as client:
            client.send(b"GET /li")
            if rude:
                client.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )
    assert is_well(port)


def test_a_client_that_goes_on_sending(port: Port) -> None:
    """What comes behind a request is read and thrown away, so that it hears the answer."""
    with connect(port) as client:
        client.sendall(b"GET /live HTTP/1.1\r\n\r\n" + b"x" * 100_000)
        assert everything(client).endswith(BODY)


def test_more_clients_than_there_is_room_for(port: Port) -> None:
    """The oldest go, and whoever comes is answered."""
    clients = [connect(port) for _ in range(MOST_CLIENTS + 50)]
    assert is_well(port)
    for client in clients:
        client.close()
    assert is_well(port)
