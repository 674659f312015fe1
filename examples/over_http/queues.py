"""A transport: a queue of bytes for every site, over nothing but Python's http.server and urllib. It knows no protocol.

What this leaves out: TLS, and a proof of who fetches. A stranger at the port can keep a site's frames from it, which
then counts as gone; it can neither read nor forge one.
"""

import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue

LONGEST = 64 << 20
"""Bytes of a body."""


def fetch(url: str, body: bytes | None = None) -> bytes:
    """Return what waits at `url`, empty if nothing came in a while; or bring it `body`."""
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return bytes(answer.read(LONGEST))


class Queues(ThreadingHTTPServer):
    """GET /INDEX waits a while for a site's next bytes; POST / brings an answer."""

    daemon_threads = False  # what is being told when all is over is told to the end

    def __init__(self, sites: int, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers, self.boxes = SimpleQueue[bytes](), [SimpleQueue[bytes]() for _ in range(sites)]
        self.seen = set[int]()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next(self, until: float) -> bytes:
        """Return an answer. Raises Empty if none came until then (as of `time.monotonic`)."""
        return self.answers.get(timeout=max(0, until - time.monotonic()))

    def wait_for_all(self, patience: float) -> None:
        """Wait until every site has asked, that many seconds at most."""
        until = time.monotonic() + patience
        while len(self.seen) < len(self.boxes) and time.monotonic() < until:
            time.sleep(0.1)

    def tell_all(self, body: bytes) -> None:
        """Put this into every site's queue; nothing that waited there is of use any more."""
        for box in self.boxes:
            while not box.empty():
                box.get()
            box.put(body)

    def stop(self, patience: float) -> None:
        """Wait that long for whoever has not fetched the last word, and end."""
        until = time.monotonic() + patience
        while time.monotonic() < until and not all(box.empty() for box in self.boxes):
            time.sleep(0.1)
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Queues
    timeout = 30

    def do_GET(self) -> None:
        place = self.path.strip("/")
        if not place.isdecimal() or int(place) >= len(self.server.boxes):
            return self._reply(404)
        self.server.seen.add(int(place))
        try:
            return self._reply(200, self.server.boxes[int(place)].get(timeout=5))
        except Empty:
            return self._reply(200)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST:
            return self._reply(400)
        self.server.answers.put(self.rfile.read(int(length)))
        return self._reply(200)

    def _reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who talks when is nobody's business here."""
