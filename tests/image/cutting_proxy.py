"""A TCP proxy that breaks connections: ``cutting_proxy.py LISTEN TARGET CUT STALL``, ports of 127.0.0.1 and bytes.

Each connection ends after CUT bytes of answers, or hangs after STALL bytes; 0 for neither. It prints a line
when it listens.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

LISTEN, TARGET, CUT, STALL = map(int, sys.argv[1:])


def forward(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client: socket.socket) -> None:
    with client, socket.create_connection(("127.0.0.1", TARGET)) as server:
        threading.Thread(target=forward, args=(client, server), daemon=True).start()
        left = CUT or STALL or 1 << 60
        try:
            while left and (data := server.recv(min(65536, left))):
                client.sendall(data)
                left -= len(data)
            while not left and STALL:
                time.sleep(60)
            client.shutdown(socket.SHUT_RDWR)  # closing is not enough while the other thread reads
        except OSError:
            pass


with socket.create_server(("127.0.0.1", LISTEN)) as listener:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
