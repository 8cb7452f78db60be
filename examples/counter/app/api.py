"""HTTP in front of the store, which it finds by what CONNECT put into its environment."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE = os.environ["STORE_HOST"], int(os.environ["STORE_PORT"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection(STORE, 2) as connection:
            connection.sendall(self.path.encode() + b"\n")
            visits = int(connection.makefile().readline())
        body = json.dumps({"path": self.path, "visits": visits}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("api: store is", os.environ["STORE_CONNECTION_STRING"], flush=True)
ThreadingHTTPServer(("", 7000), Handler).serve_forever()
