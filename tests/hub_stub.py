"""The part of the Hub's HTTP interface that an upload needs, on loopback and in memory."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HubStub:
    """A hub with the repositories of one commit each.

    token: the token that it accepts.
    private: by repository, whether it is private.
    files: by repository and path, the committed content.
    fails: status of the answer to paths that match a regular expression.
    """

    token: str
    endpoint: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fails: dict[str, int] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """Return status and JSON of the answer to a request."""
        self.asked.append(path)
        for pattern, status in self.fails.items():
            if re.search(pattern, path):
                # As a careless server does, it repeats what it was sent.
                return status, {"error": f"no: {authorization}"}
        if stored := re.fullmatch("/objects/(.+)", path):
            self.objects[stored[1]] = body
            return 200, {}
        if authorization != f"Bearer {self.token}":
            return 401, {"error": f"Invalid credentials in {authorization}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, self._batch(json.loads(body))
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path)
        if asked is None or asked[1] not in self.private:
            return 404, {"error": "Repository not found"}
        name, rest = asked[1], asked[2] or ""
        if rest.startswith("/preupload/"):
            return 200, self._modes(json.loads(body))
        if rest.startswith("/commit/"):
            self._commit(name, body)
            return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/1", "commitOid": "1" * 40}
        return 200, {"id": name, "private": self.private[name], "sha": "1" * 40, "tags": []}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.endpoint}/{name}"
        if name in self.private:
            return 409, {"error": "You already created this model repo", "url": url}
        is_private = wanted.get("private") or wanted.get("visibility") == "private"
        self.private[name] = bool(is_private)
        return 200, {"url": url}

    def _modes(self, wanted: dict[str, Any]) -> dict[str, Any]:
        files = []
        for file in wanted["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        return {"files": files}

    def _batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in wanted["objects"]:
            href = f"{self.endpoint}/objects/{one['oid']}"
            objects.append({**one, "actions": {"upload": {"href": href}}})
        return {"transfer": "basic", "objects": objects}

    def _commit(self, name: str, body: bytes) -> None:
        files = self.files.setdefault(name, {})
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]


@contextmanager
def serve(token: str) -> Iterator[HubStub]:
    """Serve a hub on a free port of loopback while the block runs."""
    hub = HubStub(token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self._body()
            status, value = hub.answer(self.path, self.headers.get("Authorization", ""), body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
