/*
 * The loads that the measurements run against, all on this host.
 *
 *   load rr CPU            request/response of 64 bytes over one connection, on the loopback
 *   load crr CPU           connect, 64 bytes there and back, close from both sides
 *   load getppid CPU       the shortest system call
 *   load pread CPU FILE    4 KiB of a file that is in the page cache
 *   load fadvise CPU FILE  posix_fadvise() that changes nothing
 *   load churn CPU FILE    1 MiB of a file evicted by posix_fadvise() and read again
 *   load refused CPU       a datagram to a port of the loopback where nobody listens: one packet dropped
 *   load hold N PORT       N connections with a little traffic behind them, both ends in this process
 *   load empty             a BPF program on inet_sock_set_state that does nothing
 *
 * All but the last two read lines from stdin, each a number of milliseconds to work for, and answer each with the
 * operations done and the CPU time that this process (and its server) used for them, in nanoseconds. All end with
 * stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

/* What is done again and again, on a descriptor. */
static struct sockaddr_in server_address;
static char page[4096];

static void connection(int fd)
{
	(void)fd;
	one_connection(&server_address);
}

static void ask_parent(int fd)
{
	(void)fd;
	getppid();
}

static void read_page(int fd)
{
	static off_t at;

	if (pread(fd, page, sizeof(page), at) != sizeof(page))
		at = 0;
	else
		at += sizeof(page);
}

static void advise(int fd)
{
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL))
		errx(1, "posix_fadvise");
}

static void evict_and_read(int fd)
{
	static char chunk[1 << 20];

	if (posix_fadvise(fd, 0, sizeof(chunk), POSIX_FADV_DONTNEED) ||
	    pread(fd, chunk, sizeof(chunk), 0) != sizeof(chunk))
		err(1, "churn");
}

static void send_datagram(int fd)
{
	struct sockaddr_in nobody = here(9);

	if (sendto(fd, page, SIZE, 0, (void *)&nobody, sizeof(nobody)) != SIZE)
		err(1, "sendto");
}

/* Answers each line with what was done and what it cost; a server's CPU time is added. */
static void work(void (*operation)(int), int fd, pid_t server)
{
	clockid_t server_clock = CLOCK_PROCESS_CPUTIME_ID;
	char line[32];

	if (server && clock_getcpuclockid(server, &server_clock))
		errx(1, "the server has no clock");
	while (fgets(line, sizeof(line), stdin)) {
		long long before = read_clock(CLOCK_PROCESS_CPUTIME_ID), server_before = read_clock(server_clock),
			  cpu_time;
		long long end = read_clock(CLOCK_MONOTONIC) + atoll(line) * 1000000;
		long operations = 0;

		do {
			for (int i = 0; i < 32; i++, operations++)
				operation(fd);
		} while (read_clock(CLOCK_MONOTONIC) < end);
		cpu_time = read_clock(CLOCK_PROCESS_CPUTIME_ID) - before;
		if (server)
			cpu_time += read_clock(server_clock) - server_before;
		printf("%ld %lld\n", operations, cpu_time);
		fflush(stdout);
	}
}

static void work_with_server(int per_connection)
{
	int listener = listen_at(0, &server_address);
	pid_t server = fork();

	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(listener);
		_exit(1);
	}
	close(listener);
	work(per_connection ? connection : exchange, per_connection ? -1 : connect_to(&server_address), server);
	kill(server, SIGKILL);
}

static int open_warm(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		err(1, "%s", path);
	while (read(fd, page, sizeof(page)) > 0)
		;
	return fd;
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

/* What the kernel's statistics show for it is what they, and the way to a program, cost. */
static void empty_program(void)
{
	struct bpf_insn nothing[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT,
		.insns = (unsigned long)nothing,
		.insn_cnt = sizeof(nothing) / sizeof(*nothing),
		.license = (unsigned long)"GPL",
		.prog_name = "empty",
	};
	union bpf_attr attach = { .raw_tracepoint.name = (unsigned long)"inet_sock_set_state" };
	int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));

	attach.raw_tracepoint.prog_fd = program;
	if (program < 0 || syscall(SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, &attach, sizeof(attach)) < 0)
		err(1, "an empty program");
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
}

int main(int count, char **words)
{
	const char *kind = count > 1 ? words[1] : "";

	if (count == 4 && !strcmp(kind, "hold")) {
		hold(atoi(words[2]), atoi(words[3]));
		return 0;
	}
	if (count == 2 && !strcmp(kind, "empty")) {
		empty_program();
		return 0;
	}
	if (count > 2)
		pin(atoi(words[2])); /* the server too: on one CPU no time depends on how two are woken */
	if (count == 3 && !strcmp(kind, "rr"))
		work_with_server(0);
	else if (count == 3 && !strcmp(kind, "crr"))
		work_with_server(1);
	else if (count == 3 && !strcmp(kind, "getppid"))
		work(ask_parent, -1, 0);
	else if (count == 3 && !strcmp(kind, "refused"))
		work(send_datagram, socket(AF_INET, SOCK_DGRAM, 0), 0);
	else if (count == 4 && !strcmp(kind, "pread"))
		work(read_page, open_warm(words[3]), 0);
	else if (count == 4 && !strcmp(kind, "fadvise"))
		work(advise, open_warm(words[3]), 0);
	else if (count == 4 && !strcmp(kind, "churn"))
		work(evict_and_read, open_warm(words[3]), 0);
	else
		errx(2, "usage: load rr|crr|getppid|refused CPU | pread|fadvise|churn CPU FILE | hold N PORT | empty");
	return 0;
}
