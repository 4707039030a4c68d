"""A real HTTP server in a process of its own that serves a folder, and answers some requests badly."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Of the first requests for each path, a share meets a fault; every third one is good, so that patience helps."""

    folder: Path
    share: float
    slow: float
    counts: dict[str, int] = {}

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.folder / urllib.parse.unquote(self.path.lstrip("/"))
        if not path.is_file():
            return self.send_error(404)
        content, fault = path.read_bytes(), self._fault() if body else ""
        with (self.folder / ".requests").open("a") as log:
            log.write(f"{self.command} {self.path} {fault}\n")
        if fault == "error":
            return self.send_error(random.choice([500, 502, 503]))
        if fault == "slow":
            time.sleep(self.slow)
        if fault == "changed":
            content = content[: len(content) // 2] + b"?" + content[len(content) // 2 + 1 :]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 3] if fault == "cut" else content)
            if fault == "cut":
                self.close_connection = True
        return None

    def _fault(self) -> str:
        number = self.counts[self.path] = self.counts.get(self.path, 0) + 1
        draw = random.Random(f"{self.path} {number}")
        if number % 3 == 0 or draw.random() >= self.share:
            return ""
        return draw.choice(["error", "cut", "slow", "changed" if self.path.endswith((".tar", ".npy")) else "error"])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, faults: float = 0.0, slow: float = 0.5) -> Iterator[str]:
    """The address of ``folder``. ``faults``: share of the requests that go wrong; ``slow``: seconds that some take."""
    (folder / ".requests").write_text("")
    command = [sys.executable, __file__, str(folder), str(faults), str(slow), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.send_signal(signal.SIGKILL)


def requests(folder: Path, suffix: str = "") -> list[str]:
    """``METHOD PATH FAULT`` of the requests for files that end with ``suffix``."""
    return [line for line in (folder / ".requests").read_text().splitlines() if line.split()[1].endswith(suffix)]


def main() -> None:
    Handler.folder, Handler.share, Handler.slow = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    os.close(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == int(sys.argv[4]):  # ends with the test, however that ends
        time.sleep(0.2)


if __name__ == "__main__":
    main()
