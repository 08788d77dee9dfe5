/* embedded -- the files of scripts/hikyaku as octets, compiled in (embed.cmake). */
#ifndef HKY_ROUTE_EMBEDDED_H
#define HKY_ROUTE_EMBEDDED_H

#include <stddef.h>

struct hky_embedded_script {
    const char *name; /* without .lua; NULL ends the table */
    const unsigned char *text;
    size_t n;
};
extern const struct hky_embedded_script hky_embedded_scripts[];

#endif
