"""A small local stand-in for the Hugging Face hub: repositories, large files and commits."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_a-token-that-may-write"
OWNER = "somebody"


class Hub:
    """What the hub holds: the files of every repository, whether it is private, and its commits."""

    def __init__(self):
        self.files, self.private, self.commits = {}, {}, {}
        self.large = {}
        self.requests = []
        self.url = ""

    def answer(self, method, path, token, body):
        """Status and content for a request."""
        self.requests.append((method, path))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith("/large/"):
            self.large[path.rpartition("/")[2]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid user token."}
        owner, name = path.removeprefix("/api/models").split("/")[1:3]
        repository = f"{owner}/{name.removesuffix('.git')}"
        respond = next((each for end, each in self._calls.items() if path.endswith(end)))
        return respond(repository, [json.loads(line) for line in body.splitlines()])

    @property
    def _calls(self):
        """What responds to a call, by the end of its path."""
        return {
            "/repos/create": self._create,
            "/objects/batch": self._batch,
            "/preupload/main": self._modes,
            "/commit/main": self._commit,
            "": self._about,
        }

    def _create(self, _, lines):
        [wanted] = lines
        repository = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.url}/{repository}"
        if wanted["organization"] != OWNER:
            return 403, {"error": "You don't have the rights to create a model there"}
        if repository in self.files:
            return 409, {"error": "You already created this model repo", "url": url}
        self.files[repository], self.commits[repository] = {}, []
        self.private[repository] = wanted.get("visibility") == "private"
        return 200, {"url": url, "name": repository}

    def _about(self, repository, _):
        if repository not in self.files:
            return 404, {"error": "Repository not found"}
        sha = hashlib.sha1(str(self.commits[repository]).encode()).hexdigest()
        return 200, {"id": repository, "private": self.private[repository], "sha": sha}

    def _modes(self, repository, lines):
        return 200, {"files": [self._mode(repository, each) for each in lines[0]["files"]]}

    def _mode(self, repository, file):
        large = file["path"].endswith(".safetensors")
        held = self.files[repository].get(file["path"])
        oid = None
        if held is not None:
            git = f"blob {len(held)}\0".encode() + held
            oid = hashlib.sha256(held).hexdigest() if large else hashlib.sha1(git).hexdigest()
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _batch(self, _, lines):
        return 200, {"objects": [self._upload(each) for each in lines[0]["objects"]]}

    def _upload(self, wanted):
        if wanted["oid"] in self.large:
            return wanted
        href = f"{self.url}/large/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href, "header": {}}}}

    def _commit(self, repository, lines):
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                self.files[repository][value["path"]] = base64.b64decode(value["content"])
            else:
                content = self.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.files[repository][value["path"]] = content
        self.commits[repository].append(lines[0]["value"]["summary"])
        number = f"{len(self.commits[repository]):040x}"
        url = f"{self.url}/{repository}/commit/{number}"
        return 200, {"success": True, "commitOid": number, "commitUrl": url, "hookOutput": ""}


@contextmanager
def hub():
    """A running `Hub`."""
    held = Hub()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(iter(self._chunk, b""))
            with lock:
                status, content = held.answer(
                    self.command, self.path.partition("?")[0], self.headers["Authorization"], body
                )
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = respond  # noqa: N815 - the names that http.server calls

        def _chunk(self):
            size = int(self.rfile.readline(), 16)
            data = self.rfile.read(size)
            self.rfile.readline()
            return data

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
