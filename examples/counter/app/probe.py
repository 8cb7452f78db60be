"""Does something listen on the port that is the first argument? A failure is a traceback and an exit status of 1."""

import socket
import sys

socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
