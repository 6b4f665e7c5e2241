"""Requests at a constant rate, whatever the answers do. Run by its path, in a process of its own; needs only the stdlib.

Arguments: port, file with the whole request (head and body), connections, requests per second, seconds. A latency counts from
the moment that a request was due, also where no connection was free then, so that a server that stalls cannot hide the
requests that it kept from being sent (coordinated omission). Timers are too coarse, so it sleeps only while the next request
is far. Prints JSON, in seconds; ``late_p99`` is how long a request waited that was due and had a free connection: the
generator's own doing.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque

DRAIN_S = 15.0
_SOON_S = 0.001


class Client:
    """One connection: at most one request on it at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.unsent = b""
        self._missing = -1
        self._head = b""
        self.bad = False

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._missing, self._head, self.bad = -1, b"", False
        self.unsent = request
        self.push()

    def push(self) -> None:
        """Send what the socket takes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def received(self) -> bool:
        """Read; whether the answer is whole."""
        data = self.socket.recv(262144)
        if not data:
            raise ConnectionError("the server closed a connection")
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = self._head[:end].lower()
            self.bad = b" 200 " not in head[:16]
            start = head.index(b"content-length:") + 15
            length = int(head[start:].split(b"\r\n", 1)[0])
            self._missing = length - (len(self._head) - end - 4)
        else:
            self._missing -= len(data)
        return self._missing <= 0


def main(port: int, request: bytes, connections: int, rate: float, seconds: float) -> None:
    poll = select.epoll()
    clients: dict[int, Client] = {}
    for _ in range(connections):
        client = Client(port)
        clients[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
    free = deque(clients.values())
    latencies: list[float] = []
    late: list[float] = []
    errors = sent = 0
    total = max(1, int(rate * seconds))
    clock = time.perf_counter
    started = freed = clock()
    give_up = started + seconds + DRAIN_S
    while len(latencies) < total:
        now = clock()
        if now > give_up:
            break
        while sent < total and free and (due := started + sent / rate) <= now:
            client = free.popleft()
            client.send(request, due)
            late.append(clock() - max(due, freed))
            sent += 1
            if client.unsent:
                poll.modify(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        left_s = started + sent / rate - clock() if sent < total else 0.01
        for number, events in poll.poll(left_s - _SOON_S if left_s > 2 * _SOON_S else 0):
            client = clients[number]
            if events & select.EPOLLOUT:
                client.push()
                if not client.unsent:
                    poll.modify(number, select.EPOLLIN)
            if events & ~select.EPOLLOUT and client.received():
                latencies.append(clock() - client.due)
                errors += client.bad
                if not free:
                    freed = clock()
                free.append(client)
    ended = clock()
    latencies += [ended - (started + each / rate) for each in range(len(latencies), total)]  # at least so long
    latencies.sort()
    late.sort()

    def at(values: list[float], share: float) -> float:
        return values[min(len(values) - 1, int(len(values) * share))]

    said = {"requests": total, "seconds": ended - started, "errors": errors + (total - sent)}
    said |= {"p50": at(latencies, 0.5), "p99": at(latencies, 0.99), "late_p99": at(late, 0.99)}
    print(json.dumps(said))


if __name__ == "__main__":
    with open(sys.argv[2], "rb") as file:  # noqa: PTH123 (as light as it can be)
        content = file.read()
    main(int(sys.argv[1]), content, int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
