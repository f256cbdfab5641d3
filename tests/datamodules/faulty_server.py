"""An HTTP server on loopback that serves a folder, with faults that a test chooses."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class FaultyServer(ThreadingHTTPServer):
    """Serves ``/name`` of a folder; a path may begin with faults: ``/500x2/cut100x1/a.tar``.

    ``500``, ``404``: a status; ``cutN``: the connection is closed N bytes into the file;
    ``slowN``: N tenths of a second before an answer; ``plain``: ranges are ignored; ``redirect``:
    to the rest of the path. ``xN`` behind a fault: the first N requests alone.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: Counter[str] = Counter()  # by the whole path
        self.sent: Counter[str] = Counter()  # bytes of bodies
        super().__init__(("127.0.0.1", 0), _Handler)

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request, client_address):
        """A client that went away is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        number = self.server.requests[self.path]
        self.server.requests[self.path] += 1
        *faults, name = self.path.strip("/").split("/")
        plain, cut = False, None
        for place, fault in enumerate(faults):
            kind, amount, first = re.fullmatch(r"([a-z]*)(\d*)(?:x(\d+))?", fault).groups()
            if first is not None and number >= int(first):
                continue
            if kind == "":
                return self._end(int(amount))
            if kind == "redirect":
                return self._end(302, Location="/" + "/".join([*faults[place + 1 :], name]))
            if kind == "slow":
                time.sleep(int(amount) / 10)
            plain = plain or kind == "plain"
            cut = int(amount) if kind == "cut" else cut
        if name == "":
            names = sorted(path.name for path in self.server.folder.iterdir())
            page = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
            return self._send(page, 200, {"Content-Type": "text/html"}, None)
        path = self.server.folder / name
        if not path.is_file():
            return self._end(404)
        content, status, headers = path.read_bytes(), 200, {"ETag": f'"{path.stat().st_mtime_ns}"'}
        if (wanted := self.headers.get("Range")) and not plain:
            start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
            if start >= len(content):
                return self._end(416)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
            cut = None if cut is None else max(0, cut - start)
            content, status = content[start : end + 1], 206
        return self._send(content, status, headers, cut)

    def _send(self, content, status, headers, cut):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if cut is None else content[:cut])
        self.server.sent[self.path] += len(content if cut is None else content[:cut])
        self.close_connection = cut is not None and cut < len(content)

    def _end(self, status, **headers):
        self._send(b"", status, headers, None)


@contextmanager
def faulty_server(folder: Path) -> Iterator[FaultyServer]:
    """Run the server in a thread."""
    server = FaultyServer(folder)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
