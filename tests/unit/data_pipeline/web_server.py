"""A web server on 127.0.0.1 that serves parts of files and fails when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer(ThreadingHTTPServer):
    """``faults``: what the next requests get: a status, "cut" for half of what they ask for, 0 for all of it."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.ranges = files, ranges
        self.faults: list[int | str] = []
        self.requests = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def web_server(files: dict[str, bytes], ranges: bool = True) -> Iterator[WebServer]:
    with WebServer(files, ranges) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests += 1
        path = self.path.partition("?")[0].lstrip("/")
        content = self.server.files.get(path, self._index(path))
        fault = self.server.faults.pop(0) if self.server.faults else 0
        if content is None or (isinstance(fault, int) and fault):
            self._answer(fault if isinstance(fault, int) and fault else 404, b"")
            return
        wanted = self.headers.get("Range", "")
        if wanted and self.server.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last or len(content)) + 1]
            place = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self._answer(206, part, fault == "cut", **{"Content-Range": place})
        else:
            self._answer(200, content, fault == "cut")

    do_HEAD = do_GET

    def _index(self, path: str) -> bytes | None:
        """The page of a folder, with links to what is in it."""
        folder = path.rstrip("/") + "/" if path else ""
        names = {name.removeprefix(folder) for name in self.server.files if name.startswith(folder)}
        return "".join(f'<a href="/{folder}{name}">{name}</a>' for name in sorted(names)).encode() if names else None

    def _answer(self, status: int, content: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass
