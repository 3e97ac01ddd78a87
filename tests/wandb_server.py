"""A stand-in for W&B's server on the loopback, which keeps what a client sends so that it can be looked at."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "project", "internalId": "1", "name": "p", "entity": {"id": "entity", "name": "me"}}
SEQUENCE = {"__typename": "ArtifactSequence", "id": "sequence", "name": "model", "project": PROJECT}
ARTIFACT = {
    "__typename": "Artifact", "id": "artifact", "artifactSequence": SEQUENCE | {"latestArtifact": None},
    "versionIndex": 0, "artifactType": {"name": "model"}, "description": None, "metadata": None,
    "ttlDurationSeconds": 0, "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1,
    "digest": "digest", "commitHash": "abc", "fileCount": 1, "aliases": [], "createdAt": "2026-01-01T00:00:00",
    "updatedAt": None,
}  # fmt: skip
MEMBERSHIP = {
    "__typename": "ArtifactCollectionMembership", "id": "membership", "versionIndex": 0, "aliases": [],
    "createdAt": "2026-01-01T00:00:00", "artifactCollection": SEQUENCE, "artifact": ARTIFACT,
}  # fmt: skip
VIEWER = {"id": "user", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
FIXED: dict[str, Any] = {
    "Viewer": {"viewer": VIEWER},
    "GetDefaultEntity": {"viewer": VIEWER},
    "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": {"coreWeaveOrganizationId": None}}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "ArtifactType": {"project": {"artifact": {"artifactType": {"name": "model"}}}},
    "CreateArtifact": {"createArtifact": {"artifact": ARTIFACT | {"state": "PENDING"}}},
    "CommitArtifact": {"commitArtifact": {"artifact": ARTIFACT}},
    "ArtifactMembershipByName": {"project": {"artifactCollectionMembership": MEMBERSHIP}},
}
"""Answers that do not depend on what is asked."""


class Server:
    """What has arrived: queries by name with their variables, file streams, and files by the path of their upload."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, dict[str, Any]]] = []
        self.streams: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.url = ""

    def given(self, name: str) -> list[dict[str, Any]]:
        """The variables of all queries of this name."""
        return [variables for one, variables in self.queries if one == name]

    def lines(self, name: str) -> list[Any]:
        """The lines of a file that was streamed, in order."""
        parts = [stream["files"][name] for stream in self.streams if name in stream.get("files", {})]
        return [json.loads(line) for part in parts for line in part["content"]]

    def answer(self, query: str, given: dict[str, Any]) -> Any:
        name = (re.search(r"(?:query|mutation)\s+(\w+)", query) or [query, query])[1]
        self.queries.append((name, given))
        if name in FIXED:
            return FIXED[name]
        if name == "UpsertBucket":
            about = {"displayName": given["displayName"], "description": None, "config": None, "sweepName": None}
            bucket = {"id": "run", "name": given["name"], "project": PROJECT, "historyLineCount": 0} | about
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": one, "uploadUrl": f"{self.url}/run/{one}"} for one in given["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifactManifest":
            return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": self._file("manifest")}}}
        if name == "CreateArtifactFiles":
            nodes = [{"node": self._file(one["name"])} for one in given["input"]["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if name == "FetchArtifactManifest":
            return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.url}/artifact/manifest"}}}}
        self.unknown.append(query)
        return {}

    def _file(self, name: str) -> dict[str, Any]:
        """Where a file of an artifact is to be uploaded."""
        place = {"uploadUrl": f"{self.url}/artifact/{name}", "uploadHeaders": [], "uploadMultipartUrls": None}
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "storagePath": name,
            "artifact": {"id": "artifact"},
        } | place


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _say(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body, answer = self._body(), {}
            if self.path == "/graphql":
                content = json.loads(body)
                answer = {"data": server.answer(content["query"], content.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                server.streams.append(json.loads(body))
            self._say(json.dumps(answer).encode())

        def do_PUT(self) -> None:
            server.files[self.path] = self._body()
            self._say(b"")

        def do_GET(self) -> None:
            found = server.files.get(f"/artifact/{self.path.rpartition('/')[2]}")
            self._say(found or b"", 404 if found is None else 200)

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    return Handler


@contextmanager
def running() -> Iterator[Server]:
    """A server at its `url` while the context lasts."""
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
