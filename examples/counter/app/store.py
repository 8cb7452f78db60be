"""A counter that forgets nothing while it runs: one line in, one line out."""

import socketserver

counts = {}


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            key = line.strip()
            counts[key] = counts.get(key, 0) + 1
            self.wfile.write(b"%d\n" % counts[key])


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


print("store: ready", flush=True)
Server(("", 6000), Handler).serve_forever()
