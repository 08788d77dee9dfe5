/* What a connection test says of its own, in Japanese. */
#include "deliver/probe_words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *en, *ja;
    } rows[] = {
        {"cannot connect: Connection refused", "接続できません：接続が拒否されました"},
        {"no answer in 30 s", "30秒待っても接続できませんでした"},
        {"timed out after 300 s: no reply", "300秒でタイムアウトしました：応答がありません"},
        {"a.example: A and AAAA of a.example: the domain does not exist (NXDOMAIN)",
         "a.example：a.exampleのアドレス（A、AAAA）：ドメインが存在しません（NXDOMAIN）"},
        {"the certificate was not accepted: certificate has expired",
         "証明書を受け入れられません：有効期限が切れています"},
        {"the server does not offer STARTTLS", "サーバーがSTARTTLSに対応していません"},
        {"5.3.4 the message has 900 octets, the server takes 10",
         "5.3.4 メールは900オクテットですが、サーバーの上限は10です"},
        {"unexpected reply to AUTH: 250 ok", "AUTHに対する想定外の応答です：250 ok"},
        {"a reply that no command asked for: 250 extra", "コマンドを送っていないのに応答がありました：250 extra"},
        {"unexpected reply to the connection, in place of a greeting: 250 hi",
         "接続時に想定外の応答がありました：250 hi"},
        {"nobody knows this one", "nobody knows this one"},
        {"*: *: *: *: *", "*：*：*：*: *"}, /* it goes only so deep */
        {"", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_buf out;
        hky_buf_init(&out, 4096);
        hky_probe_words_ja(hky_str_z(rows[i].en), &out);
        if (strcmp(hky_buf_z(&out), rows[i].ja) != 0)
            fail_msg("%s: %s", rows[i].en, hky_buf_z(&out));
        hky_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
