"""A stand-in for the W&B server: accepts one run's traffic and keeps what arrives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Received:
    """What arrived: history lines by step, the config, the summary, and the exit code."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.operations: list[str] = []
        self.runs: set[str] = set()
        self.exit_code: int | None = None
        self.url = ""


ENTITY = {"id": "1", "name": "tester", "username": "tester", "email": "t@example.com", "admin": False, "flags": "{}"}


def answer(received: Received, request: dict[str, Any]) -> dict[str, Any]:
    """The GraphQL answer that the client needs to go on."""
    name, variables = request.get("operationName") or "", request.get("variables") or {}
    query = request.get("query", "")
    name = name or next((word for word in query.replace("(", " ").split() if word not in ("query", "mutation")), "")
    received.operations.append(name)
    if "UpsertBucket" in name or "upsertBucket" in query:
        run = variables.get("name") or "run"
        received.runs.add(run)
        if variables.get("config"):
            received.config |= json.loads(variables["config"])
        project = {"id": "2", "name": variables.get("project") or "ptk", "entity": {"id": "1", "name": "tester"}}
        bucket = {
            "id": "3", "name": run, "displayName": variables.get("displayName") or run, "description": "",
            "config": variables.get("config") or "{}", "sweepName": None, "project": project, "historyLineCount": 0,
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if "CreateRunFiles" in name:
        files = [{"name": file, "uploadUrl": f"{received.url}/upload/{file}"} for file in variables.get("files", [])]
        return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": files}}
    if "RunStoppedStatus" in name:
        return {"project": {"run": {"stopped": False}}}
    if "RunResumeStatus" in name:
        return {
            "model": {"id": "2", "name": "ptk", "entity": {"id": "1", "name": "tester"}, "bucket": bucket_of(received)}
        }
    if "Viewer" in name:
        return {"viewer": {**ENTITY, "entity": "tester", "teams": {"edges": []}}, "serverInfo": None}
    if "ServerFeatures" in name:
        return {"serverInfo": {"features": []}}
    if "OrganizationCoreWeave" in name:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
    return {}


def bucket_of(received: Received) -> dict[str, Any] | None:
    """What a resume is told of the run: how far its history has come."""
    if not received.history:
        return None
    last = received.history[-1]
    return {
        "id": "3", "name": next(iter(received.runs)), "displayName": "run", "notes": "", "tags": [],
        "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "historyLineCount": len(received.history),
        "historyTail": json.dumps([json.dumps(last)]), "config": "{}", "wandbConfig": '{"t": {"1": [1]}}',
        "summaryMetrics": json.dumps({"_step": last["_step"]}),
    }  # fmt: skip


@contextmanager
def wandb_server() -> Iterator[Received]:
    """Run it on a free port of this machine; ``url`` says where."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.startswith("/graphql"):
                self.reply({"data": answer(received, json.loads(body))})
                return
            if "/file_stream" in self.path and body:
                self.stream(json.loads(body))
            self.reply({"limits": {}, "exitcode": 0})

        def stream(self, value: dict[str, Any]) -> None:
            history = (value.get("files") or {}).get("wandb-history.jsonl") or {}
            received.history += [json.loads(line) for line in history.get("content", [])]
            if value.get("complete"):
                received.exit_code = value.get("exitcode")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.reply({})

        def do_GET(self) -> None:
            self.reply({})

        def reply(self, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
