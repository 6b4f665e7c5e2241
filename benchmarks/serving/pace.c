/* Requests at a constant rate, whatever the answers do. In C, since in Python the generator would be slower than the server.

Arguments: port, file with the whole request (head and body), connections, requests per second, seconds. A latency counts from
the moment that a request was due, also where no connection was free then, so that a server that stalls cannot hide the
requests that it kept from being sent (coordinated omission). Timers are too coarse, so it sleeps only while the next request
is far. Prints JSON, in seconds; `late_p99` is how long a request waited that was due and had a free connection, and `busy`
the share of its core that the generator took for itself: its own doing. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_S 15.0
#define SOON_S 0.0005
#define COARSE_PER_S 1000 /* below, a millisecond late is nothing, and another generator may need the core */
#define HEAD 4096

typedef struct {
  int socket, bad;
  double due;
  size_t unsent, head_size;
  long missing; /* bytes of the answer's body; -1 while its head is not whole */
  char head[HEAD];
} Client;

static const char *request;
static size_t request_size;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void push(Client *c) {
  while (c->unsent) {
    ssize_t sent = send(c->socket, request + request_size - c->unsent, c->unsent, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) fail("send");
    c->unsent -= sent;
  }
}

/* Read; whether the answer is whole. */
static int received(Client *c) {
  static char buffer[262144];
  ssize_t size = recv(c->socket, buffer, sizeof buffer, 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (size <= 0) fail("the server closed a connection");
  if (c->missing >= 0) {
    c->missing -= size;
    return c->missing <= 0;
  }
  size_t room = HEAD - 1 - c->head_size, kept = (size_t)size < room ? (size_t)size : room;
  memcpy(c->head + c->head_size, buffer, kept);
  c->head_size += kept;
  c->head[c->head_size] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) {
    if (c->head_size == HEAD - 1) fail("the head of an answer is too large");
    return 0;
  }
  c->bad = strncmp(c->head + 8, " 200 ", 5) != 0;
  char *length = strcasestr(c->head, "\r\ncontent-length:");
  if (!length || length > end) fail("an answer without content-length");
  size_t before = c->head_size - kept; /* of the head, read earlier */
  c->missing = atol(length + 17) - (size - (long)(end + 4 - c->head - before));
  return c->missing <= 0;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double at(double *values, long count, double share) {
  if (!count) return 0;
  qsort(values, count, sizeof *values, ascending);
  long place = count * share;
  return values[place < count ? place : count - 1];
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int connections = atoi(argv[3]), poll = epoll_create1(0);
  double rate = atof(argv[4]), seconds = atof(argv[5]);
  FILE *file = fopen(argv[2], "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(argv[2]);
  request_size = ftell(file);
  rewind(file);
  char *content = malloc(request_size);
  if (fread(content, 1, request_size, file) != request_size) fail(argv[2]);
  request = content;

  Client *clients = calloc(connections, sizeof *clients);
  Client **free_ones = malloc(connections * sizeof *free_ones); /* the one that rests longest comes first */
  int first = 0, resting = connections;
  for (int i = 0; i < connections; i++) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, s = clients[i].socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(s, F_SETFL, fcntl(s, F_GETFL) | O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
    epoll_ctl(poll, EPOLL_CTL_ADD, s, &event);
    free_ones[i] = &clients[i];
  }

  long total = rate * seconds < 1 ? 1 : (long)(rate * seconds), sent = 0, answered = 0, errors = 0;
  double *latencies = malloc(total * sizeof *latencies), *late = malloc(total * sizeof *late);
  double started = now(), freed = started, slept = 0;
  struct epoll_event events[64];
  while (answered < total && now() < started + seconds + DRAIN_S) {
    double moment = now();
    while (sent < total && resting) {
      double due = started + sent / rate;
      if (due > moment) break;
      Client *c = free_ones[first];
      first = (first + 1) % connections;
      resting--;
      c->due = due, c->unsent = request_size, c->head_size = 0, c->missing = -1;
      push(c);
      double done = now();
      late[sent++] = done - (due > freed ? due : freed);
      if (c->unsent) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_MOD, c->socket, &event);
      }
    }
    double before = now(), left = sent < total && resting ? started + sent / rate - before : 0.01;
    int wait = rate < COARSE_PER_S ? (int)(left * 1e3) + 1 : left > 2 * SOON_S ? (int)((left - SOON_S) * 1e3) : 0;
    int count = epoll_wait(poll, events, 64, left > 0 ? wait : 0);
    slept += now() - before;
    for (int i = 0; i < count; i++) {
      Client *c = events[i].data.ptr;
      if (c->unsent && events[i].events & EPOLLOUT) {
        push(c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (!c->unsent) epoll_ctl(poll, EPOLL_CTL_MOD, c->socket, &event);
      }
      if (events[i].events & ~EPOLLOUT && received(c)) {
        double ended = now();
        latencies[answered++] = ended - c->due;
        errors += c->bad;
        if (!resting) freed = ended;
        free_ones[(first + resting++) % connections] = c;
      }
    }
  }
  double ended = now();
  long lost = total - answered;
  for (long i = answered; i < total; i++) latencies[i] = ended - (started + i / rate); /* at least so long */
  double p50 = at(latencies, total, 0.5), p99 = at(latencies, total, 0.99);
  printf("{\"requests\": %ld, \"seconds\": %.6f, \"errors\": %ld, \"p50\": %.6f, \"p99\": %.6f, \"late_p99\": %.6f, \"busy\": %.3f}\n",
         total, ended - started, errors + lost, p50, p99, at(late, sent, 0.99), 1 - slept / (ended - started));
  return 0;
}
