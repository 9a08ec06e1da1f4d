"""HTTP at the port of the real server, as programs and strangers speak it."""

from __future__ import annotations

import contextlib
import datetime as dt
import select
import socket
import ssl
import time
from contextlib import closing
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from unittest import TestCase, skipIf

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.caller import TIMEOUT, Caller, ServerCase, dial
from tests.server import Server
from tests.visitor import Answer, get, post, read_answers

TLS = find_spec("OpenSSL") is not None
"""Whether Twisted has TLS here."""
BIG_TAC = Path(__file__).absolute().parent / "big.tac"
BIG = 16 * 4096 * 400


def rest_of(stream: socket.socket) -> bytes:
    """What the server sends until it closes."""
    received = b""
    while data := stream.recv(65536):
        received += data
    return received


def talk(stream: socket.socket, *requests: bytes) -> list[Answer]:
    """The answers to requests that are sent together, the last of which asks for the end."""
    stream.sendall(b"".join(requests))
    return read_answers(rest_of(stream))


LAST = get("/readyz", Connection="close")


class Http(ServerCase):
    """Beside the WebSockets."""

    def test_an_ordinary_client_keeps_its_connection(self) -> None:
        """Of Python's standard library, here."""
        client = HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
        self.addCleanup(client.close)
        seen = []
        for path in ("/healthz", "/readyz", "/ws", "/nothing"):
            client.request("GET", path)
            answer = client.getresponse()
            answer.read()
            seen.append((answer.status, client.sock is None))
        self.assertEqual(seen, [(200, False), (200, False), (426, False), (404, False)])

    def test_requests_may_be_sent_together(self) -> None:
        """The answers come in their order, and those of WebSockets go on."""
        with Caller(self.server.url) as caller, closing(dial(self.server.url)) as stream:
            answers = talk(
                stream, *[get("/healthz"), get("/x"), post("/healthz", b"x")] * 100, LAST
            )
            self.assertEqual([answer.status for answer in answers], [200, 404, 405] * 100 + [200])
            self.assertEqual(caller.ask(op="ping", id=1)["event"], "pong")

    def test_a_request_may_come_byte_by_byte(self) -> None:
        """However the network cuts it."""
        with closing(dial(self.server.url)) as stream:
            for byte in post("/readyz", b"{}", Connection="close"):
                stream.sendall(bytes([byte]))
            self.assertEqual([a.status for a in read_answers(rest_of(stream))], [405])

    def test_a_web_socket_wants_a_connection_of_its_own(self) -> None:
        """Afterwards the connection goes on."""
        upgrade = get("/ws", Connection="Upgrade", Upgrade="websocket")
        with closing(dial(self.server.url)) as stream:
            answers = talk(stream, get(), upgrade, LAST)
        self.assertEqual([answer.status for answer in answers], [200, 426, 200])

    def test_a_post_that_is_too_long_is_cut_off_with_an_answer(self) -> None:
        """Which is not lost, though the client is still sending."""
        head = get("/healthz", "POST", Content_Length=str(3 << 20))
        chunked = get("/healthz", "POST", Transfer_Encoding="chunked")
        chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
        for begin, more in ((head, b"x" * (3 << 20)), (chunked + chunk * 2, chunk * 3)):
            with closing(dial(self.server.url)) as stream:
                stream.sendall(begin)
                select.select([stream], [], [], TIMEOUT)
                stream.sendall(more)
                self.assertEqual([a.status for a in read_answers(rest_of(stream))], [413])

    def test_all_of_it_is_there_on_a_unix_socket(self) -> None:
        """As a proxy on the same machine would have it."""
        with Server("--listen", f"unix:{self.server.directory}/s") as server:
            path = self.server.directory / "s"
            with closing(dial(server.url, path)) as stream:
                answers = talk(stream, get(), post("/healthz", b"x" * 500_000), LAST)
            self.assertEqual([answer.status for answer in answers], [200, 405, 200])
            with closing(dial(server.url, path)) as stream:
                self.assertEqual([a.status for a in talk(stream, b"nonsense\r\n\r\n")], [400])
            self.assertNotIn("Traceback", server.log)

    def test_a_connection_that_idles_does_not_hold_up_a_stop(self) -> None:
        """Nor half a request."""
        with closing(dial(self.server.url)) as idle, closing(dial(self.server.url)) as half:
            idle.sendall(get())
            self.assertIn(b"200", idle.recv(4096))
            half.sendall(get() + get()[:-3])
            self.assertIn(b"200", half.recv(4096))
            began = time.monotonic()
            self.server.stop()
            self.assertLess(time.monotonic() - began, 2.0)
            self.assertEqual((idle.recv(10), half.recv(10)), (b"", b""))


class Much(TestCase):
    """An answer that is larger than what is kept for a client."""

    def setUp(self) -> None:
        """Start a server with a large page."""
        self.server = self.enterContext(Server(tac=BIG_TAC))

    def memory(self) -> int:
        """Bytes that the server has in memory."""
        for line in Path(f"/proc/{self.server.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def test_it_comes_whole_and_is_not_kept_for_a_slow_reader(self) -> None:
        """Ten who do not read cost nearly nothing; then the next request is answered."""
        with contextlib.ExitStack() as open_:
            streams = [open_.enter_context(closing(dial(self.server.url))) for _ in range(10)]
            before = self.memory()
            for stream in streams:
                stream.sendall(get("/big") + LAST)
                stream.recv(1)
            with Caller(self.server.url) as caller:
                self.assertEqual(caller.ask(op="ping", id=1)["event"], "pong")
            self.assertLess(self.memory() - before, 10 << 20)
            for stream in streams:
                answers = read_answers(b"H" + rest_of(stream))
                self.assertEqual([len(answer.body) for answer in answers], [BIG, len(b"ready\n")])
        self.assertNotIn("Traceback", self.server.log)

    def test_it_does_not_hold_up_a_stop_for_ever(self) -> None:
        """Who does not read is dropped after five seconds."""
        with closing(dial(self.server.url)) as stream:
            stream.sendall(get("/big"))
            stream.recv(1)
            began = time.monotonic()
            self.server.stop()
            self.assertLess(time.monotonic() - began, 7.0)
        self.assertNotIn("Traceback", self.server.log)


def certificate(directory: Path) -> tuple[Path, Path]:
    """The files of a key and of a certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


@skipIf(not TLS, "Twisted has no TLS without pyOpenSSL")
class Encrypted(ServerCase):
    """The same over TLS."""

    def setUp(self) -> None:
        """Start a server with a certificate that is made for it."""
        super().setUp()
        key, self.certificate = certificate(self.server.directory)
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={self.certificate}"
        self.server = self.enterContext(Server("--listen", endpoint))

    def dial(self) -> ssl.SSLSocket:
        """An encrypted connection, to which an end that is not is an error."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        stream = context.wrap_socket(
            dial(self.server.url), server_hostname="localhost", suppress_ragged_eofs=False
        )
        return self.enterContext(closing(stream))

    def test_requests_are_answered(self) -> None:
        """Kept, sent together, and refused."""
        answers = talk(self.dial(), get(), post("/healthz", b"x" * 500_000), get("/ws"), LAST)
        self.assertEqual([answer.status for answer in answers], [200, 405, 426, 200])
        head = get("/healthz", "POST", Content_Length=str(3 << 20))
        answers = talk(self.dial(), head + b"x" * (3 << 20))
        self.assertEqual([answer.status for answer in answers], [413])

    def test_an_idle_connection_does_not_hold_up_a_stop(self) -> None:
        """It is told of the end of the encryption, too."""
        stream = self.dial()
        stream.sendall(get())
        self.assertIn(b"200", stream.recv(4096))
        self.server.terminate()
        self.assertEqual(rest_of(stream), b"")
        stream.close()
        self.server.wait()
