"""A local Hugging Face hub on 127.0.0.1: the part of its interface that the hub's client needs to download files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34

Repositories = dict[str, dict[str, bytes]]  # "models/gpt2" or "datasets/owner/name" → path → content


class LocalHub(ThreadingHTTPServer):
    """``requests`` holds the paths of all requests so far."""

    daemon_threads = True

    def __init__(self, repositories: Repositories, moved: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.requests = repositories, list[str]()
        self.moved = moved | {f"api/models/{old}": f"api/models/{new}" for old, new in moved.items()}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def local_hub(repositories: Repositories, moved: dict[str, str] | None = None) -> Iterator[LocalHub]:
    """Serves ``repositories``; from names of models that ``moved`` it redirects to the new ones, as the hub does."""
    with LocalHub(repositories, moved or {}) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        self.server.requests.append(path)
        for old, new in self.server.moved.items():
            if path.startswith(f"{old}/"):
                self._answer(307, b"", Location=f"/{new}{path.removeprefix(old)}")
                return
        for name, files in self.server.repositories.items():
            if path == f"api/{name}/revision/main":
                self._json({"id": name.partition("/")[2], "sha": COMMIT, "siblings": []})
                return
            if path == f"api/{name}/tree/{COMMIT}":
                self._json([_entry(file, content) for file, content in files.items()])
                return
            for file, content in files.items():
                if path == f"{name.removeprefix('models/')}/resolve/{COMMIT}/{file}":
                    self._answer(200, content, ETag=f'"{_blob(content)}"', **{"X-Repo-Commit": COMMIT})
                    return
        self._answer(401, b"", **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}


def _blob(content: bytes) -> str:
    """As git names it, and the hub does in the ETag."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
