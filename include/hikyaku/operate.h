/* operate -- the commands that a running engine takes; the command line makes its help and its checks from them. */
#ifndef HIKYAKU_OPERATE_H
#define HIKYAKU_OPERATE_H

#include "hikyaku/console.h"

extern const struct hky_command hky_operate_commands[]; /* ended by name NULL; ctx is the engine */

#endif
