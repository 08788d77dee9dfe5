/* operate -- the commands of a running engine; the command line takes its help and its checks from this table. */
#ifndef HIKYAKU_OPERATE_H
#define HIKYAKU_OPERATE_H

#include "hikyaku/console.h"

extern const struct hky_command hky_operate_commands[]; /* ended by name NULL; ctx is the engine */

#endif
