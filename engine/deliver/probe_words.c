#include "deliver/probe_words.h"

#define STARS_MAX  3
#define NESTED_MAX 3

/* The first entry that fits is used. Each '*' of `en` matches any text, which is put into `ja` in the same order, after
 * it was translated itself. */
static const struct {
    const char *en, *ja;
} words[] = {
    /* connecting */
    {"cannot connect: *", "接続できません：*"},
    {"cannot make a socket: *", "ソケットを作成できません：*"},
    {"cannot use the source address: *", "送信元アドレス（source）を使用できません：*"},
    {"no answer in * s", "*秒待っても接続できませんでした"},
    {"no connection within the time allowed", "制限時間内に接続できませんでした"},
    {"every address was tried", "すべてのアドレスを試しました"},
    {"the test took longer than * s", "テストが*秒以内に終わりませんでした"},
    {"Connection refused", "接続が拒否されました"},
    {"Connection timed out", "接続がタイムアウトしました"},
    {"Connection reset by peer", "相手が接続をリセットしました"},
    {"No route to host", "ホストへの経路がありません"},
    {"Network is unreachable", "ネットワークに到達できません"},
    {"Host is unreachable", "ホストに到達できません"},
    {"Permission denied", "許可がありません"},
    {"Cannot assign requested address", "要求されたアドレスを割り当てられません"},
    {"Address family not supported by protocol", "このアドレスの種類は使用できません"},
    {"Too many open files", "開いているファイルが多すぎます"},
    {"Broken pipe", "接続が切れています"},
    /* DNS; the host or domain comes before these */
    {"MX of *: *", "*のMX：*"},
    {"A and AAAA of *: *", "*のアドレス（A、AAAA）：*"},
    {"CNAME of *: the aliases lead in a circle", "*の別名（CNAME）が循環しています"},
    {"the domain does not exist (NXDOMAIN)", "ドメインが存在しません（NXDOMAIN）"},
    {"the domain has no such record", "該当するレコードがありません"},
    {"no resolver answered in time", "DNSサーバーが時間内に応答しませんでした"},
    {"the resolver could not find out (SERVFAIL)", "DNSサーバーが解決できませんでした（SERVFAIL）"},
    {"the resolver refuses to answer (REFUSED)", "DNSサーバーが応答を拒否しました（REFUSED）"},
    {"SERVFAIL or REFUSED, or no resolver in reach",
     "DNSサーバーが解決できない（SERVFAIL、REFUSED）か、DNSサーバーに到達できません"},
    {"the domain accepts no mail (null MX)", "このドメインはメールを受け付けません（null MX）"},
    {"the domain's MX records name no usable host", "MXレコードに使用できるホストがありません"},
    {"its address is this machine's own (loopback)", "アドレスがこのマシン自身（ループバック）です"},
    {"no address that can be reached from `source`", "sourceから到達できるアドレスがありません"},
    {"no such name", "名前が存在しません"},
    /* the conversation */
    {"timed out after * s: *", "*秒でタイムアウトしました：*"},
    {"no reply", "応答がありません"},
    {"the server stopped reading", "サーバーが受信を止めました"},
    {"the server closed the connection", "サーバーが接続を切断しました"},
    {"reading from the peer failed: *", "受信に失敗しました：*"},
    {"writing to the peer failed: *", "送信に失敗しました：*"},
    {"writing to the peer failed", "送信に失敗しました"},
    {"it closed the connection", "相手が接続を切断しました"},
    {"the peer took longer than allowed", "相手の応答が制限時間を超えました"},
    {"the peer sent more than * octets that cannot be used", "使用できないデータが*オクテットを超えて届きました"},
    {"not an SMTP reply: *", "SMTPの応答ではありません：*"},
    {"a reply that no command asked for: *", "コマンドを送っていないのに応答がありました：*"},
    {"unexpected reply to the connection, in place of a greeting: *", "接続時に想定外の応答がありました：*"},
    {"unexpected reply to *: *", "*に対する想定外の応答です：*"},
    {"answered before the end of the message: *", "メールを送り終える前に応答がありました：*"},
    /* TLS */
    {"the server does not offer STARTTLS", "サーバーがSTARTTLSに対応していません"},
    {"octets before the TLS handshake: somebody may have put them there",
     "TLSハンドシェイクの前にデータが届きました（第三者が挿入した可能性があります）"},
    {"the peer sent * octets in clear after STARTTLS", "STARTTLSの後に平文で*オクテット届きました"},
    {"the peer closed the connection during the TLS handshake", "TLSハンドシェイク中に相手が接続を切断しました"},
    {"the peer ended the connection in the middle, without TLS close_notify",
     "TLSの終了通知（close_notify）なしに、途中で接続が切断されました"},
    {"the TLS handshake took longer than allowed", "TLSハンドシェイクが制限時間を超えました"},
    {"the TLS handshake failed: *", "TLSハンドシェイクに失敗しました：*"},
    {"the certificate was not accepted: *", "証明書を受け入れられません：*"},
    {"certificate has expired", "有効期限が切れています"},
    {"certificate is not yet valid", "まだ有効期間に入っていません"},
    {"self-signed certificate in certificate chain", "証明書チェーンに自己署名証明書があります"},
    {"self-signed certificate", "自己署名証明書です"},
    {"unable to get local issuer certificate", "発行者の証明書が見つかりません"},
    {"unable to get issuer certificate", "発行者の証明書が見つかりません"},
    {"unable to verify the first certificate", "最初の証明書を検証できません"},
    {"hostname mismatch", "ホスト名が一致しません"},
    {"IP address mismatch", "IPアドレスが一致しません"},
    {"certificate revoked", "失効しています"},
    {"the server's public key is not the pinned one", "サーバーの公開鍵がpinと一致しません"},
    {"cannot read CA certificates from *: *; give a PEM file",
     "*から認証局の証明書を読めません（*）。PEMファイルを指定してください"},
    /* AUTH */
    {"the password is not sent without verified TLS: *", "検証済みのTLSなしではパスワードを送信しません：*"},
    {"set tls = \"starttls\" or \"implicit\"", "tlsを\"starttls\"または\"implicit\"にしてください"},
    {"the server offers none of the AUTH mechanisms that may be used here",
     "ここで使用できる認証方式（AUTH）をサーバーが提供していません"},
    {"the server does not offer AUTH here", "サーバーが認証（AUTH）に対応していません"},
    {"the server said 235 before the login was over, or without proving that it knows the password",
     "認証が終わる前に、またはパスワードを知っている証明なしに、サーバーが235を返しました"},
    {"AUTH does not come to an end", "認証（AUTH）が終わりません"},
    {"AUTH * failed here: *", "AUTH *がこちら側で失敗しました：*"},
    {"the server's AUTH challenge is not base64", "サーバーのAUTHチャレンジがbase64ではありません"},
    {"the server asks for a SCRAM iteration count above *", "サーバーのSCRAM反復回数が*を超えています"},
    {"the password or token is empty", "パスワードまたはトークンが空です"},
    {"the password or token is too long for a login", "パスワードまたはトークンが長すぎます"},
    {"the user name, password or token has control octets: write it again",
     "ユーザー名、パスワードまたはトークンに制御文字があります。書き直してください"},
    {"the token endpoint cannot be reached: *", "トークンの発行元に接続できません：*"},
    {"the token endpoint answered *: *", "トークンの発行元が*を返しました：*"},
    /* the message */
    {"* the server does not offer SMTPUTF8, which this needs", "* 必要なSMTPUTF8にサーバーが対応していません"},
    {"* the address needs SMTPUTF8, which the server does not offer",
     "* アドレスに必要なSMTPUTF8にサーバーが対応していません"},
    {"* the server does not offer 8BITMIME, which this needs", "* 必要な8BITMIMEにサーバーが対応していません"},
    {"* the message has * octets, the server takes *", "* メールは*オクテットですが、サーバーの上限は*です"},
    {"*: *", "*：*"},
};

struct stars {
    struct hky_str s[STARS_MAX];
    unsigned n;
};

/* Each '*' matches as little as it can; one at the end of the pattern matches all that is left. */
static bool fits(struct hky_str text, const char *pattern, struct stars *stars)
{
    stars->n = 0;
    while (*pattern != '\0') {
        bool is_star = *pattern == '*';
        const char *piece = pattern + is_star;
        size_t n = strcspn(piece, "*"), at = 0;

        if (is_star && stars->n == STARS_MAX)
            return false;
        if (is_star && n == 0) { /* the end of the pattern */
            stars->s[stars->n++] = text;
            return text.n > 0;
        }
        if (is_star) {
            const char *hit = hky_str_ifind(text, hky_str_of(piece, n));
            if (hit == NULL || hit == text.p)
                return false;
            at = (size_t)(hit - text.p);
            stars->s[stars->n++] = hky_str_of(text.p, at);
        } else if (text.n < n || memcmp(text.p, piece, n) != 0) {
            return false;
        }
        text = hky_str_of(text.p + at + n, text.n - at - n);
        pattern = piece + n;
    }
    return text.n == 0;
}

static void translate(struct hky_str text, unsigned depth, struct hky_buf *out)
{
    struct stars stars;
    unsigned star = 0;
    size_t i = 0;

    while (i < sizeof words / sizeof *words && !fits(text, words[i].en, &stars))
        i++;
    if (i == sizeof words / sizeof *words || depth == NESTED_MAX) {
        hky_buf_add_str(out, text);
        return;
    }
    for (const char *p = words[i].ja; *p != '\0'; p++)
        if (*p == '*' && star < stars.n)
            translate(stars.s[star++], depth + 1, out);
        else
            hky_buf_add_c(out, *p);
}

void hky_probe_words_ja(struct hky_str text, struct hky_buf *out)
{
    translate(text, 0, out);
}
