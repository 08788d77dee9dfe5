/*
 * hash -- checksums for records, hashes for tables and experiments, random octets, message ids.
 */
#ifndef HKY_BASE_HASH_H
#define HKY_BASE_HASH_H

#include "base/str.h"

/* CRC32C (Castagnoli, RFC 3720 B.4), continued from `crc` (0 to start). */
uint32_t hky_crc32c(uint32_t crc, const void *p, size_t n);

/* A fast 64-bit hash, the same on every machine and in every version: arms of experiments depend on it. */
uint64_t hky_hash64(const void *p, size_t n, uint64_t seed);

/* Octets from the kernel; never fails. */
void hky_random(void *p, size_t n);

/* A message id as text: 13 digits and lower-case letters (base 32, no i l o u), sorts by age. */
#define HKY_ID_TEXT 14
void hky_id_format(uint64_t id, char text[HKY_ID_TEXT]);
bool hky_id_parse(struct hky_str text, uint64_t *id);

#endif
