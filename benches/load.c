/*
 * The loads that the measurements run against, all on the loopback.
 *
 *   load rr CPU           request/response of 64 bytes over one connection
 *   load crr CPU          connect, 64 bytes there and back, close from both sides
 *   load hold N PORT      N connections with a little traffic behind them, both ends in this process
 *
 * rr and crr read lines from stdin, each a number of milliseconds to work for, and answer each with the operations done
 * and the CPU time that client and server used for them, in nanoseconds. All end with stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE 64

static long long read_clock(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		err(1, "clock_gettime");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

static struct sockaddr_in here(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

static int listen_at(int port, struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t size = sizeof(*address);

	*address = here(port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)address, size) || listen(fd, 1024) || getsockname(fd, (void *)address, &size))
		err(1, "listen");
	return fd;
}

static int connect_to(const struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const void *)address, sizeof(*address)))
		err(1, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void exchange(int fd)
{
	char buffer[SIZE] = {};

	if (send(fd, buffer, SIZE, 0) != SIZE || recv(fd, buffer, SIZE, MSG_WAITALL) != SIZE)
		err(1, "exchange");
}

static void serve(int listener)
{
	char buffer[SIZE];
	int one = 1, fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (recv(fd, buffer, SIZE, MSG_WAITALL) == SIZE)
			send(fd, buffer, SIZE, 0);
		close(fd);
	}
}

/* Both sides send a FIN and see the other's; the client's comes first. */
static void one_connection(const struct sockaddr_in *address)
{
	int fd = connect_to(address);
	char byte;

	exchange(fd);
	shutdown(fd, SHUT_WR);
	if (recv(fd, &byte, 1, 0) != 0)
		err(1, "the server does not close");
	close(fd);
}

static void work(int cpu, int per_connection)
{
	struct sockaddr_in address;
	int listener = listen_at(0, &address), fd = -1;
	clockid_t server_clock;
	pid_t server;
	char line[32];

	pin(cpu); /* the server too: on one CPU no time depends on how two are woken */
	server = fork();
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(listener);
		_exit(1);
	}
	close(listener);
	if (clock_getcpuclockid(server, &server_clock))
		errx(1, "the server has no clock");
	if (!per_connection)
		fd = connect_to(&address);
	while (fgets(line, sizeof(line), stdin)) {
		long long cpu_time = -read_clock(CLOCK_PROCESS_CPUTIME_ID) - read_clock(server_clock);
		long long end = read_clock(CLOCK_MONOTONIC) + atoll(line) * 1000000;
		long operations = 0;

		do {
			for (int i = 0; i < 32; i++, operations++) {
				if (per_connection)
					one_connection(&address);
				else
					exchange(fd);
			}
		} while (read_clock(CLOCK_MONOTONIC) < end);
		cpu_time += read_clock(CLOCK_PROCESS_CPUTIME_ID) + read_clock(server_clock);
		printf("%ld %lld\n", operations, cpu_time);
		fflush(stdout);
	}
	kill(server, SIGKILL);
}

static void hold(int count, int port)
{
	struct sockaddr_in address;
	int listener = listen_at(port, &address);
	char buffer[SIZE] = {};

	for (int i = 0; i < count; i++) {
		int near = connect_to(&address), far = accept(listener, NULL, NULL);

		if (far < 0)
			err(1, "accept");
		/* Both ends measure a round-trip time. */
		for (int turn = 0; turn < 2; turn++) {
			int from = turn ? far : near, to = turn ? near : far;

			if (send(from, buffer, SIZE, 0) != SIZE || recv(to, buffer, SIZE, MSG_WAITALL) != SIZE)
				err(1, "exchange");
		}
	}
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "rr"))
		work(atoi(words[2]), 0);
	else if (count == 3 && !strcmp(words[1], "crr"))
		work(atoi(words[2]), 1);
	else if (count == 4 && !strcmp(words[1], "hold"))
		hold(atoi(words[2]), atoi(words[3]));
	else
		errx(2, "usage: load rr CPU | crr CPU | hold N PORT");
	return 0;
}
