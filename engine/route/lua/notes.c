/* note "text": the text is shown by explain and, up to a limit per second, in the log; while the policy is loaded, it
 * is shown among the problems. */
#include "route/lua/collect.h"

#include "base/hash.h"

#include <stdlib.h>

#define NOTES_MAX 50
#define NOTE_MAX  200
#define A_SECOND  10 /* lines of one worker */
#define SECOND_MS 1000

static void note_keep(char ***notes, size_t *n, struct hky_str text)
{
    if (*n > NOTES_MAX)
        return;
    if (*n == NOTES_MAX)
        text = HKY_STR("(further notes are not shown)");
    *notes = (char **)hky_realloc((void *)*notes, (*n + 1) * sizeof **notes);
    (*notes)[(*n)++] = hky_str_dup(text);
}

static void note_log(struct hky_vm *vm, struct hky_str text)
{
    const struct hky_route_query *q = vm->query;
    char id[HKY_ID_TEXT];

    if (vm->log == NULL || q == NULL || !hky_log_is_on(vm->log, HKY_LOG_INFO))
        return;
    if (q->now_ms - vm->note_second_ms >= SECOND_MS || q->now_ms < vm->note_second_ms) {
        if (vm->n_noted > A_SECOND)
            hky_log(vm->log, HKY_LOG_INFO, "note", "left_out=%u", vm->n_noted - A_SECOND);
        vm->note_second_ms = q->now_ms;
        vm->n_noted = 0;
    }
    if (vm->n_noted++ >= A_SECOND)
        return;
    hky_id_format(q->message->id, id);
    hky_log(vm->log, HKY_LOG_INFO, "note", "msg=%s rcpt=\"" HKY_STR_FMT "\" text=\"" HKY_STR_FMT "\"", id,
            HKY_STR_ARG(hky_recipient_address(q->recipient)), HKY_STR_ARG(text));
}

/* At most NOTE_MAX octets, without a piece of a character at the end. */
static struct hky_str beginning_of(struct hky_str text)
{
    if (text.n <= NOTE_MAX)
        return text;
    for (text.n = NOTE_MAX; text.n > NOTE_MAX - 4 && ((unsigned char)text.p[text.n] & 0xc0) == 0x80;)
        text.n--;
    return text;
}

void hky_vm_note(struct hky_vm *vm, struct hky_place place, struct hky_str text)
{
    struct hky_route_table *t = vm->table;

    text = beginning_of(text);
    if (vm->loader != NULL) {
        if (vm->loader->is_worker)
            return; /* it was already shown when the policy was loaded */
        if (t->n_notes < NOTES_MAX)
            hky_loader_note(vm->loader, place, "%.*s", (int)text.n, text.p);
        else if (t->n_notes == NOTES_MAX)
            hky_loader_note(vm->loader, place, "(further notes are not shown)");
        note_keep(&t->notes, &t->n_notes, text);
        return;
    }
    if (vm->wants_notes)
        note_keep(&vm->notes, &vm->n_notes, text);
    note_log(vm, text);
}

void hky_vm_set_log(struct hky_vm *vm, struct hky_log *log)
{
    vm->log = log;
}
