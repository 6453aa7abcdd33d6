#!/usr/bin/env python3
"""Short connections in great number: storm.py SERVERS PORT CONNECTIONS. So many pairs of processes, a server and a
client each, on 127.0.0.1, 127.0.0.2 and so on, share the connections out; prints as JSON what clients and servers sent.

Every connection is of another size and ends in one of three ways: the client closes first, the server does, or the
client resets it once it has everything."""

import ctypes
import json
import multiprocessing
import signal
import socket
import struct
import sys

AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: close with a reset


def sizes(number):
    """Of the request and of the answer."""
    return 1 + number * 7919 % 3000, 1 + number * 104_729 % 5000


def receive(connection, size):
    while size:
        received = len(connection.recv(min(size, 65536)))
        assert received, "the connection ended early"
        size -= received


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def serve(listener, numbers):
    end_with_parent()
    answer = bytes(5001)
    for number in numbers:
        connection, _ = listener.accept()
        with connection:
            request, reply = sizes(number)
            receive(connection, request)
            connection.sendall(answer[:reply])
            if number % 3 != 0:
                try:
                    connection.recv(1)
                except ConnectionResetError:
                    pass


def connect(address, numbers):
    end_with_parent()
    message = bytes(3001)
    for number in numbers:
        with socket.create_connection(address) as connection:
            request, reply = sizes(number)
            connection.sendall(message[:request])
            receive(connection, reply)
            if number % 3 == 0:
                connection.recv(1)
            elif number % 3 == 1:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)


def main():
    pairs, port, connections = map(int, sys.argv[1:])
    processes = []
    for index in range(pairs):
        address = (f"127.0.0.{index + 1}", port)
        listener = socket.create_server(address)
        numbers = range(index, connections, pairs)
        processes.append(multiprocessing.Process(target=serve, args=(listener, numbers)))
        processes.append(multiprocessing.Process(target=connect, args=(address, numbers)))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    requests, replies = zip(*map(sizes, range(connections)))
    print(json.dumps({"clients": sum(requests), "servers": sum(replies)}))


if __name__ == "__main__":
    main()
