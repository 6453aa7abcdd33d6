/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of the ends of a connection. Addresses are IPv6, IPv4 ones mapped; ports are in host order. */
#ifndef SIDECAR_ENDS_H
#define SIDECAR_ENDS_H

#include "types.h"

enum role {
	ROLE_UNKNOWN,
	ROLE_CLIENT, /* this process called connect */
	ROLE_SERVER, /* this process accepted */
};

#endif
