/* http -- the HTTP side of the console. console/ only. */
#ifndef HKY_CONSOLE_HTTP_H
#define HKY_CONSOLE_HTTP_H

#include "hikyaku/console.h"

struct hky_console_http;
/* GET /healthz and /metrics on a loopback address; anything else 404. HKY_E_CONFIG: `addr` is none, or not loopback.
 * HKY_E_EXISTS: the port is in use. HKY_E_NET: it cannot be opened. */
enum hky_err hky_console_http_new(struct hky_loop *loop, const char *addr, const struct hky_console_ops *ops,
                                  struct hky_console_http **out, struct hky_error *e);
void hky_console_http_free(struct hky_console_http **h);

#endif
