"""A judge that may be killed: a chat server whose score depends on the text alone.

``python -m tests.chaos.judge_server PORT``. It keeps nothing, so a new one answers as the old one.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

THINKING_S = 0.02


class Handler(BaseHTTPRequestHandler):
    """Answers every chat with one number."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = "".join(message["content"] for message in asked["messages"])
        time.sleep(THINKING_S)
        number = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 101
        choices = [
            {"token": str(number), "logprob": math.log(0.75)},
            {"token": str(100 - number), "logprob": math.log(0.125)},
        ]
        content = [{**choices[0], "top_logprobs": choices}]
        body = json.dumps({"choices": [{"logprobs": {"content": content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes the port over from a killed one."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
