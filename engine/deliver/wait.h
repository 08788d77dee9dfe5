/*
 * wait -- how long a refusal asks to wait, read from its words: "try again in 5 min 30 sec", "Retry-After: 120",
 * "after 28 Nov 2026 23:50:00 UTC", "00:05:00", "PT5M", "5分後". Pure.
 */
#ifndef HKY_DELIVER_WAIT_H
#define HKY_DELIVER_WAIT_H

#include "hikyaku/outcome.h"

#define HKY_WAIT_MAX_SEC (3 * 24 * 3600U)

/* Seconds, at most HKY_WAIT_MAX_SEC; 0: the text names no wait, or a longer one. A number that is a size, a count, or
 * the time in which something happened is no wait. now_ms is for texts that name a moment. */
uint32_t hky_wait_asked_sec(const struct hky_reply *r, int64_t now_ms);

#endif
