"""A Hugging Face Hub on localhost, as much of it as `push_to_hub` and `from_pretrained` speak to.

with HubStandIn() as hub:
    ...  # in a subprocess with the environment variable HF_ENDPOINT=hub.endpoint
    hub.files["owner/name"]  # {path: bytes}
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class HubStandIn:
    """Repositories are dicts from path to content; the revision asked for does not matter."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.is_private: dict[str, bool] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, is_offline: bool = False) -> dict[str, str]:
        """Variables of a process that is to speak to this Hub, or is to think itself offline."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": str(int(is_offline)),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "120",  # on busy machines
            "HF_HUB_DOWNLOAD_TIMEOUT": "120",
            "NO_PROXY": "*",
        }

    def commit_hash(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[repo].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the other side to confirm its headers

    def log_message(self, *arguments) -> None:
        pass

    def reply(self, content: bytes | dict | list, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def is_refused(self) -> bool:
        """Whether the request brings a token that nobody has."""
        is_wrong = self.headers["Authorization"] == "Bearer a-wrong-token"
        if is_wrong:
            self.reply({"error": "Invalid user token."}, 401)
        return is_wrong

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_refused():
            return
        if self.path == "/api/repos/create":
            fields = json.loads(body)
            repo = f"{fields.get('organization') or 'someone'}/{fields['name']}"
            self.hub.files.setdefault(repo, {})
            self.hub.is_private[repo] = bool(fields.get("private")) or fields.get("visibility") == "private"
            self.reply({"url": f"{self.hub.endpoint}/{repo}", "name": repo, "id": repo})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/(?:model|space)s/([^/]+/[^/]+)/preupload/.*", self.path):
            files = [{"path": entry["path"], "uploadMode": "regular"} for entry in json.loads(body)["files"]]
            self.reply({"files": [{**entry, "shouldIgnore": False} for entry in files]})
        elif match := re.fullmatch(r"/api/(?:model|space)s/([^/]+/[^/]+)/commit/.*", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.files[match[1]][line["value"]["path"]] = content
            oid = self.hub.commit_hash(match[1])
            self.reply({"commitUrl": f"{self.hub.endpoint}/{match[1]}/commit/{oid}", "commitOid": oid})
        else:
            self.reply({"error": f"the stand-in does not serve POST {self.path}"}, 501)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.hub.files.get(match[1], {}).get(match[2])
            if content is None:
                self.reply(b"", 404, X_Error_Code="EntryNotFound" if match[1] in self.hub.files else "RepoNotFound")
            else:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.reply(content, ETag=etag, X_Repo_Commit=self.hub.commit_hash(match[1]))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.*", path):
            files = self.hub.files[match[1]].items()
            oids = {name: hashlib.sha1(content).hexdigest() for name, content in files}
            self.reply([{"type": "file", "path": n, "size": len(content), "oid": oids[n]} for n, content in files])
        elif path == "/api/whoami-v2":
            self.is_refused() or self.reply({"type": "user", "name": "someone"})
        elif match := re.fullmatch(r"/api/(?:model|space)s/([^/]+/[^/]+)(/revision/.*)?", path):
            siblings = [{"rfilename": name} for name in self.hub.files[match[1]]]
            self.reply({"id": match[1], "sha": self.hub.commit_hash(match[1]), "siblings": siblings, "tags": []})
        else:
            self.reply({"error": f"the stand-in does not serve GET {self.path}"}, 501)

    do_HEAD = do_GET
