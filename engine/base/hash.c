#include "base/hash.h"

#include "base/error.h"

#include <endian.h>
#include <errno.h>
#include <sys/random.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#endif

static uint32_t crc32c_bitwise(uint32_t crc, const unsigned char *p, size_t n)
{
    while (n-- > 0) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const unsigned char *p, size_t n)
{
    uint64_t c = crc;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    if (n >= 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        c = _mm_crc32_u32((uint32_t)c, v);
        n -= 4;
        p += 4;
    }
    for (; n > 0; n--, p++)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
}

#define CHAIN 512 /* octets */

/* `crc` as it is after `far` = x^(8n - 33) mod P, bits reversed: n octets of zeros. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_shift(uint32_t crc, uint32_t far)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc), _mm_cvtsi32_si128((int)far), 0);

    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* A step waits three cycles for the one before it; three chains side by side fill them. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_three(uint32_t crc, const unsigned char *p, size_t n)
{
    for (; n >= 3 * CHAIN; n -= 3 * CHAIN, p += 3 * CHAIN) {
        uint64_t a = crc, b = 0, c = 0;

        for (size_t i = 0; i < CHAIN; i += 8) {
            uint64_t v[3];
            memcpy(&v[0], p + i, 8);
            memcpy(&v[1], p + CHAIN + i, 8);
            memcpy(&v[2], p + 2 * CHAIN + i, 8);
            a = _mm_crc32_u64(a, v[0]);
            b = _mm_crc32_u64(b, v[1]);
            c = _mm_crc32_u64(c, v[2]);
        }
        crc = crc32c_shift((uint32_t)a, 0x170076fau) ^ crc32c_shift((uint32_t)b, 0xdd7e3b0cu) ^ (uint32_t)c;
    }
    return crc32c_sse42(crc, p, n);
}
#endif

uint32_t hky_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return n >= 3 * CHAIN && __builtin_cpu_supports("pclmul") ? ~crc32c_three(~crc, p, n)
                                                                  : ~crc32c_sse42(~crc, p, n);
#endif
    return ~crc32c_bitwise(~crc, p, n);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide r = (wide)a * b;

    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static uint64_t load_8(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static uint64_t load_4(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

/* Fewer than eight octets, the first the lowest; one that is taken twice comes to the same place. */
static uint64_t load_few(const unsigned char *p, size_t n)
{
    if (n >= 4)
        return load_4(p) | load_4(p + n - 4) << (8 * (n - 4));
    if (n == 0)
        return 0;
    return p[0] | (uint64_t)p[n / 2] << (8 * (n / 2)) | (uint64_t)p[n - 1] << (8 * (n - 1));
}

uint64_t hky_hash64(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = mix(seed ^ 0xa0761d6478bd642fu, n ^ 0xe7037ed1a0b428dbu);

    for (; n >= 8; n -= 8, p += 8)
        h = mix(h ^ load_8(p), 0x8ebc6af09c88c6e3u);
    h = mix(h ^ load_few(p, n), 0x589965cc75374cc3u ^ n);
    return mix(h ^ 0x1d8e4e27c47d124fu, 0xeb44accab455d165u);
}

void hky_random(void *p, size_t n)
{
    unsigned char *at = p;

    while (n > 0) {
        ssize_t got = getrandom(at, n < 256 ? n : 256, 0);
        if (got < 0) {
            HKY_ASSERT(errno == EINTR);
            continue;
        }
        at += got;
        n -= (size_t)got;
    }
}

static const char id_digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void hky_id_format(uint64_t id, char text[HKY_ID_TEXT])
{
    for (int i = HKY_ID_TEXT - 2; i >= 0; i--) {
        text[i] = id_digits[id & 31];
        id >>= 5;
    }
    text[HKY_ID_TEXT - 1] = '\0';
}

bool hky_id_parse(struct hky_str text, uint64_t *id)
{
    uint64_t v = 0;

    if (text.n != HKY_ID_TEXT - 1)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = hky_lower(text.p[i]);
        const char *at = c != '\0' ? strchr(id_digits, c) : NULL;
        if (at == NULL || (i == 0 && at - id_digits > 15))
            return false;
        v = v << 5 | (uint64_t)(at - id_digits);
    }
    *id = v;
    return true;
}
