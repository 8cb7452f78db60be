"""The page people see."""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = os.environ["API_CONNECTION_STRING"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with urllib.request.urlopen(API + self.path, timeout=5) as answer:
            visits = json.load(answer)["visits"]
        body = f"{os.environ['GREETING']}: {self.path} was asked for {visits} times\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("web: api is", API, flush=True)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
