/* The state of the questions about one recipient, from the beginning of its decision to the end. */
#include "route/lua/decide.h"

#include <stdlib.h>

void hky_asking_begin(struct hky_asking *a, struct hky_vm *vm, const struct hky_route_query *q)
{
    a->vm = vm;
    a->q = q;
    a->has_sender = a->has_author = false;
    a->failed = NULL;
    a->call = NULL;
    a->mail_hosts = NULL;
    a->is_unanswered = false;
    vm->query = q;
    vm->header = q->header;
    vm->is_header_missing = false;
    vm->generation = ++vm->last_generation;
    hky_match_key_init(&vm->key, hky_recipient_address(q->recipient));
}

void hky_asking_pause(struct hky_asking *a)
{
    struct hky_vm *vm = a->vm;

    HKY_ASSERT(vm->temp.blocks == NULL); /* plans are built in temp only after the function has returned */
    a->generation = vm->generation;
    a->key = vm->key;
    a->ticket = vm->ticket;
    vm->ticket = (struct hky_ticket){0};
    vm->query = a->q = NULL;
}

void hky_asking_continue(struct hky_asking *a, const struct hky_route_query *q)
{
    struct hky_vm *vm = a->vm;

    hky_ticket_end(vm->lookups, &a->ticket);
    a->q = q;
    a->failed = NULL;
    vm->query = q;
    vm->header = q->header; /* a header that was read before the wait is no longer valid */
    vm->is_header_missing = false;
    vm->generation = a->generation;
    vm->key = a->key;
}

void hky_asking_end(struct hky_asking *a)
{
    a->vm->query = NULL;
    if (a->mail_hosts != NULL)
        hky_mailhosts_unref(&a->mail_hosts);
    if (a->vm->temp.blocks != NULL)
        hky_arena_fini(&a->vm->temp);
}

struct hky_str hky_asking_header(struct hky_vm *vm)
{
    const struct hky_route_query *q = vm->query;

    if (vm->header.p == NULL && q->header_read != NULL && !vm->is_header_missing)
        vm->is_header_missing = !q->header_read(q->header_ctx, &vm->header);
    return vm->header;
}
