/*
 * The likely cause and cure of a failed connection test, for people. The first entry that fits is used; entries with
 * the words of providers come before those for classes.
 */
#include "hikyaku/deliver.h"

struct cure {
    const char *provider; /* preset glob; "" any */
    uint16_t stages;      /* bit (1 << stage); 0 any */
    enum hky_class class; /* HKY_CLASS_N any */
    int origin;           /* enum hky_origin; -1 any */
    uint16_t code;        /* 0 any; 4 or 5: every code that begins with it */
    const char *text;     /* alternatives joined by '|', each found anywhere; "" any */
    const char *en, *ja;
};

#define AT(s) (uint16_t)(1u << HKY_STAGE_##s)
#define ANY   -1

#define WRONG_SENDER_EN                                                                                                \
    "The account that logged in may not send with this sender address: it is not the account's own. Set from to the "  \
    "account's own (or a verified) address; from = true uses the user name."
#define WRONG_SENDER_JA                                                                                                                                               \
    "ログインしたアカウントでは、その差出人アドレスで送信できません（アカウント自身のアドレスではありません）。" \
    "fromにアカウント自身の（または検証済みの）アドレスを指定してください。"

static const struct cure cures[] = {
    /* AUTH */
    {"", AT(AUTH), HKY_CLASS_N, ANY, 4, "",
     "The server cannot take the login at the moment, which says nothing about user name and password. Try again "
     "later; if it stays so, there may be too many connections or logins at once, or the provider has a fault.",
     "サーバーが一時的にログインを受け付けていません。ユーザー名やパスワードが誤っているとは限りません。しばらくして"
     "再度お試しください。続く場合は、同時接続やログインの回数が多すぎるか、サービス側の障害が考えられます。"},
    {"gmail", AT(AUTH), HKY_CLASS_N, ANY, 0, "5.7.9|application-specific password",
     "Google asks for an app password. Turn on 2-step verification, create an app password (16 letters) at "
     "myaccount.google.com/apppasswords and use it instead of the account's password.",
     "Googleのアプリパスワードが必要です。2段階認証を有効にし、myaccount.google.com/apppasswords "
     "で16文字のアプリパスワードを作成して、通常のパスワードの代わりに設定してください。"},
    {"gmail", AT(AUTH), HKY_CLASS_N, ANY, 0, "5.7.8|badcredentials|5.7.14",
     "Google refuses the login. The user name must be the full address and the password an app password, or use OAuth "
     "(oauth = { ... }).",
     "Googleがログインを拒否しました。ユーザー名は完全なメールアドレス、パスワードはアプリパスワードにするか、"
     "OAuth（oauth = { ... }）を使ってください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "5.7.139|basic authentication is disabled|smtpclientauthentication is disabled",
     "Microsoft no longer takes passwords here (basic authentication is disabled). Use OAuth: oauth = { client = ..., "
     "refresh = secret \"...\" }; in Microsoft 365 an administrator may also have to allow SMTP AUTH for the mailbox.",
     "Microsoftはパスワード認証（基本認証）を停止しています。OAuth（oauth = { client = ..., refresh = secret \"...\" "
     "}）を"
     "使ってください。Microsoft 365では管理者がメールボックスのSMTP AUTHを許可する必要もあります。"},
    {"yahoo*", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "Yahoo! JAPAN refuses the login. The user name is the Yahoo! JAPAN ID without @yahoo.co.jp, and IMAP/POP/SMTP "
     "access must be switched on in the mailbox settings.",
     "Yahoo! JAPANがログインを拒否しました。ユーザー名は@yahoo.co.jpを除いたIDです。また、メール設定で"
     "IMAP/POP/SMTPアクセスを有効にしてください。"},
    {"icloud", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "iCloud needs an app-specific password (account.apple.com) and the full address as user name.",
     "iCloudではアプリ用パスワード（account.apple.comで作成）と、ユーザー名として完全なメールアドレスが必要です。"},
    {"docomo", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "docomo: the user name is the d ACCOUNT id (not the address), the password the dedicated IMAP password "
     "(IMAP専用パスワード).",
     "ドコモ：ユーザー名はdアカウントのID（メールアドレスではありません）、パスワードは「IMAP専用パスワード」です。"},
    {"au|softbank", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "The carrier refuses the login. User name and password are those of the mail settings (My au, My SoftBank), not "
     "the "
     "address and not the contract's password.",
     "キャリアがログインを拒否しました。ユーザー名とパスワードは、My au／My SoftBankのメール設定に表示されるものを"
     "使ってください（メールアドレスや契約のパスワードではありません）。"},
    {"sendgrid", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "SendGrid: the user name is the word apikey, the password an API key with the right to send mail.",
     "SendGrid：ユーザー名は「apikey」という文字列、パスワードはメール送信権限のあるAPIキーです。"},
    {"ses", AT(AUTH), HKY_CLASS_N, ANY, 0, "",
     "Amazon SES: use SMTP credentials made for this region, not the AWS access key itself.",
     "Amazon SES：AWSのアクセスキーではなく、このリージョン用に作成したSMTP認証情報を使ってください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "without verified tls",
     "A password was set, but the connection is not encrypted, so it was not sent. Use tls = \"starttls\" (587) or "
     "\"implicit\" (465); only for a server you trust in the clear: tls = \"none\" with auth = \"plain\".",
     "パスワードが設定されていますが、接続が暗号化されていないため送信しませんでした。tls = \"starttls\"（587）または"
     "\"implicit\"（465）を指定してください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "does not offer auth",
     "The server offers no login on this port. Mail accounts log in on 587 (starttls) or 465 (implicit), not on 25; if "
     "the server knows you by address, leave user and password out.",
     "このポートではログインできません。587（starttls）または465（implicit）を使ってください。"
     "IPアドレスで許可されるサーバーの場合は、userとpasswordを削除してください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "none of the auth mechanisms",
     "The server offers other ways to log in than the one asked for. Leave auth out (auto), or see the line hello for "
     "what it offers.",
     "サーバーは指定の認証方式に対応していません。authを省略（自動）するか、helloの行にある方式を指定してください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "secret|password or token is empty",
     "The password could not be read. Put it into secrets/NAME beside the policy (chmod 600) or into "
     "$HIKYAKU_SECRET_NAME.",
     "パスワードを読み込めませんでした。ポリシーと同じ場所のsecrets/NAME（chmod 600）、または環境変数"
     "HIKYAKU_SECRET_NAMEに設定してください。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "token endpoint cannot be reached",
     "The server that gives access tokens cannot be reached from here. Check token_url, and whether this machine may "
     "make HTTPS connections to it.",
     "アクセストークンの発行元に接続できません。token_urlと、このマシンからのHTTPS接続が許可されているかを確認してくだ"
     "さい。"},
    {"", AT(AUTH), HKY_CLASS_N, ANY, 0, "token endpoint",
     "The token server gave no access token. The refresh token may have expired or been revoked (Google: after 7 days "
     "while the "
     "app "
     "is in testing); authorize again and check client and client_secret.",
     "アクセストークンを取得できませんでした。リフレッシュトークンの期限切れや失効（Googleではテスト中のアプリは7日）が"
     "考えられます。再認可し、clientとclient_secretを確認してください。"},
    {"", AT(AUTH), HKY_CLASS_RELAY_AUTH, ANY, 0, "",
     "User name or password is wrong, or the account asks for an app password. Many providers want the full address as "
     "user name.",
     "ユーザー名またはパスワードが違うか、アプリパスワードが必要です。多くのサービスではユーザー名は完全なメールアドレ"
     "スです。"},
    /* connecting */
    {"", AT(CONNECT), HKY_CLASS_BAD_DOMAIN, ANY, 0, "",
     "The recipient's domain does not exist or takes no mail: check --to.",
     "宛先のドメインが存在しないか、メールを受け付けていません。--toを確認してください。"},
    {"", AT(CONNECT), HKY_CLASS_N, HKY_ORIGIN_DNS, 0, "",
     "The host name cannot be resolved. Check its spelling and this machine's resolver (engine.resolver).",
     "ホスト名を解決できません。つづりと、このマシンのDNS設定（engine.resolver）を確認してください。"},
    {"", AT(CONNECT), HKY_CLASS_N, HKY_ORIGIN_TIMEOUT, 0, "",
     "Nobody answers on this port. Many networks and hosting companies block outgoing port 25: use 587 or 465, or ask "
     "for it to be opened. Otherwise check host, port and firewall.",
     "このポートからの応答がありません。多くの回線やホスティングでは25番ポートの送信が遮断されています（OP25B）。"
     "587または465を使うか、ホスト・ポート・ファイアウォールを確認してください。"},
    {"", AT(CONNECT), HKY_CLASS_N, HKY_ORIGIN_CONNECT, 0, "refused",
     "The machine answers, but nothing listens on this port. Check the port: 587 (starttls), 465 (implicit), 25.",
     "サーバーには届きましたが、このポートは開いていません。ポート番号（587＝starttls、465＝implicit、25）を確認してく"
     "ださい。"},
    {"", AT(CONNECT), HKY_CLASS_N, ANY, 0, "unreachable",
     "There is no way to that address from here. With IPv6 only half set up, set source to an IPv4 address, or check "
     "the "
     "routing.",
     "そのアドレスへの経路がありません。IPv6の設定が不完全な場合は、sourceにIPv4アドレスを指定してください。"},
    {"", AT(GREETING), HKY_CLASS_N, HKY_ORIGIN_TIMEOUT, 0, "",
     "The server took the connection and sent no greeting. A server that speaks TLS from the first octet waits for the "
     "client to begin. On port 465 set tls = "
     "\"implicit\".",
     "接続しましたが応答がありません。最初からTLSを使うサーバーの可能性があります。465番ポートではtls = \"implicit\"を"
     "指定してください。"},
    {"", AT(GREETING) | AT(HELLO) | AT(MAIL) | AT(RCPT) | AT(DATA) | AT(DOT), HKY_CLASS_BLOCKED_IP, ANY, 0, "",
     "This machine's address is refused (block list, or a dynamic address). Send through a relay that has another "
     "address, or have this address delisted. Check its reverse DNS.",
     "このマシンのIPアドレスが拒否されています（ブロックリスト、動的IPなど）。リレーを使うか、リストの解除と逆引きDNSを"
     "確認してください。"},
    /* TLS */
    {"", AT(TLS) | AT(GREETING), HKY_CLASS_N, ANY, 0,
     "wrong version number|packet length|unexpected message|record layer",
     "The server does not speak TLS at once on this port. On 587 and 25 set tls = \"starttls\"; \"implicit\" belongs "
     "to "
     "465.",
     "このポートでは最初からTLSを使えません。587と25ではtls = \"starttls\"、465では\"implicit\"を指定してください。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "hostname|host name|does not match|mismatch",
     "The certificate is for another name. Use the host name the provider names (not an address or an alias).",
     "証明書のホスト名が一致しません。サービスが案内しているホスト名を指定してください（IPアドレスや別名は不可）。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "not yet valid",
     "The server's certificate is not yet valid: its time begins later than this machine's clock says. Check this "
     "machine's clock first; if it is right, the server's operator must install a certificate that is valid now.",
     "サーバーの証明書はまだ有効期間に入っていません。まずこのマシンの時計を確認してください。時計が正しい場合は、"
     "サーバー管理者による証明書の入れ替えが必要です。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "not the pinned one",
     "The server has another key than the one that pin names. If its operator has changed the key, check the new pin "
     "with the operator and write it in the policy; otherwise somebody between you and the server may be answering in "
     "its place.",
     "サーバーの公開鍵がpinの値と一致しません。サーバー管理者が鍵を変更した場合は、新しい値を確認してpinに設定して"
     "ください。そうでない場合は、途中に第三者がいる可能性があります。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "expired",
     "The server's certificate has expired: its operator must renew it. Check this machine's clock, too.",
     "サーバーの証明書の有効期限が切れています。サーバー管理者による更新が必要です。このマシンの時計も確認してください"
     "。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "self|unable to get|issuer|certificate",
     "The certificate is not signed by an authority this machine knows. Install ca-certificates, or name the server's "
     "own "
     "authority with ca = \"file.pem\", or pin its key with pin.",
     "証明書の発行元を確認できません。ca-certificatesを導入するか、ca = \"file.pem\"で認証局を、またはpinで公開鍵を"
     "指定してください。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "does not offer starttls",
     "The server offers no STARTTLS here. Try port 465 with tls = \"implicit\"; otherwise somebody on the way may be "
     "removing it.",
     "このポートではSTARTTLSを利用できません。465番ポートとtls = \"implicit\"を試してください。"
     "途中の機器が取り除いている可能性もあります。"},
    {"", AT(TLS), HKY_CLASS_N, ANY, 0, "",
     "TLS could not be set up. Check port and tls: 587 starttls, 465 implicit; the server must speak TLS 1.2 at least.",
     "TLS接続を確立できません。ポートとtls（587＝starttls、465＝implicit）を確認してください。TLS 1.2以上が必要です。"},
    /* envelope and content */
    {"", AT(MAIL) | AT(RCPT) | AT(DATA) | AT(DOT), HKY_CLASS_N, ANY, 530, "",
     "The server wants a login before it takes mail: set user and password.",
     "送信にはログインが必要です。userとpasswordを設定してください。"},
    {"", 0, HKY_CLASS_N, ANY, 0,
     "5.7.60|5.2.252|not one of your addresses|sender address rejected: not owned|not verified|verified sender",
     WRONG_SENDER_EN, WRONG_SENDER_JA},
    {"", 0, HKY_CLASS_QUOTA_EXHAUSTED, ANY, 0, "",
     "The account's quota is used up. Wait until its window is over, and set cap so that it is not reached again.",
     "アカウントの送信上限に達しました。時間をおいて再度お試しください。capを設定すると上限を超えなくなります。"},
    {"", 0, HKY_CLASS_RATE_LIMITED, ANY, 0, "",
     "The server gets too many messages, connections or recipients at once. Wait, and lower cap or connections.",
     "送信頻度が高すぎます。時間をおき、capまたはconnectionsを下げてください。"},
    {"", 0, HKY_CLASS_RELAY_DENIED, ANY, 0, "",
     "The server does not relay to that address for us: a login is missing (set user and password), or it takes mail "
     "only "
     "for its own domains.",
     "この宛先への中継が許可されていません。userとpasswordを設定するか、自ドメイン宛てのみ受け付けるサーバーでないか"
     "確認してください。"},
    {"", 0, HKY_CLASS_AUTH_POLICY, ANY, 0, "",
     "The mail fails SPF, DKIM or DMARC as seen from there. Send through a relay that may send for the From domain, or "
     "set from.",
     "SPF・DKIM・DMARCの検証に失敗しています。差出人ドメインの送信を許可されたリレーを使うか、fromを設定してください"
     "。"},
    {"", 0, HKY_CLASS_BAD_MAILBOX, ANY, 0, "", "The recipient of the test mail does not exist: check --to.",
     "テストメールの宛先が存在しません。--toを確認してください。"},
    {"", 0, HKY_CLASS_BAD_DOMAIN, ANY, 0, "", "The recipient's domain does not exist or takes no mail: check --to.",
     "宛先のドメインが存在しないか、メールを受け付けていません。--toを確認してください。"},
    {"", 0, HKY_CLASS_SIZE_FORMAT, ANY, 0, "", "The server does not take this message's size or format.",
     "サーバーがこのメールのサイズまたは形式を受け付けません。"},
    {"", 0, HKY_CLASS_FILTERED, ANY, 0, "", "The server's filter refused the test mail; an ordinary mail may pass.",
     "サーバーのフィルターがテストメールを拒否しました。通常のメールは通る可能性があります。"},
    {"", 0, HKY_CLASS_N, HKY_ORIGIN_TIMEOUT, 0, "",
     "The server stopped answering. Try again later; raise timeout if it is slow.",
     "サーバーの応答が途絶えました。しばらくして再度お試しください。遅いサーバーではtimeoutを延ばしてください。"},
    {"", 0, HKY_CLASS_N, HKY_ORIGIN_LOST, 0, "",
     "The server closed the connection without a word: often a limit on connections, or a block on this address.",
     "サーバーが接続を切断しました。同時接続数の上限、またはIPアドレスの拒否が考えられます。"},
    {"", 0, HKY_CLASS_SYSTEM_TEMP, ANY, 0, "", "The server is busy or has a fault at the moment. Try again later.",
     "サーバーが一時的に利用できません。しばらくして再度お試しください。"},
    {"", 0, HKY_CLASS_N, ANY, 0, "", "See the server's reply above.", "上のサーバーの応答を確認してください。"},
};

/* Does any alternative of 'a|b' fit, as a glob of the whole text or as a part of it? */
static bool one_of(const char *alternatives, struct hky_str s, bool is_part)
{
    struct hky_str rest = hky_str_z(alternatives);
    while (rest.n > 0) {
        const char *bar = memchr(rest.p, '|', rest.n);
        size_t n = bar != NULL ? (size_t)(bar - rest.p) : rest.n;
        struct hky_str one = hky_str_of(rest.p, n);
        if (is_part ? hky_str_ifind(s, one) != NULL : hky_str_glob(one, s))
            return true;
        rest = hky_str_of(rest.p + n, rest.n - n);
        if (rest.n > 0)
            rest = hky_str_of(rest.p + 1, rest.n - 1);
    }
    return false;
}

static bool is_code(uint16_t wanted, uint16_t code)
{
    return wanted == 0 || wanted == code || (wanted < 10 && wanted == code / 100);
}

static bool is_hit(const struct cure *c, const struct hky_relay *relay, const struct hky_outcome *o,
                   struct hky_str text)
{
    return (c->provider[0] == '\0' || one_of(c->provider, hky_str_z(relay->preset), false)) &&
           (c->stages == 0 || (c->stages & (1u << o->stage)) != 0) &&
           (c->class == HKY_CLASS_N || c->class == o->class) &&
           (c->origin == ANY || c->origin == (int)o->reply.origin) && is_code(c->code, o->reply.code) &&
           (c->text[0] == '\0' || one_of(c->text, text, true));
}

static bool has_login(const struct hky_relay *r)
{
    return r->auth != HKY_AUTH_NONE && (r->auth != HKY_AUTH_AUTO || (r->user != NULL && r->user[0] != '\0'));
}

/*
 * A server that accepted the login knows who we are. If it objects after that, at MAIL or in words about the sender, it
 * objects to our sender address. SPF, DKIM and DMARC are meant only where they are named.
 */
static bool is_sender_refused(const struct hky_relay *r, const struct hky_outcome *o, struct hky_str text)
{
    static const char words[] = "sender|from address|from: address|from header|mail from|return-path|return path|"
                                "envelope-from|envelope from|send as|sendas|send on behalf|originator|not owned|"
                                "差出人|送信元";
    bool is_judged = o->class == HKY_CLASS_AUTH_POLICY || o->class == HKY_CLASS_RELAY_DENIED ||
                     o->class == HKY_CLASS_RELAY_AUTH || o->class == HKY_CLASS_FILTERED ||
                     o->class == HKY_CLASS_UNKNOWN || (o->class == HKY_CLASS_BAD_MAILBOX && o->stage == HKY_STAGE_MAIL);
    bool is_auth_named = one_of("spf|dkim|dmarc|reputation|is unauthenticated", text, true);
    if (!has_login(r) || o->stage < HKY_STAGE_MAIL || o->reply.code < 500 || o->reply.code == 530 ||
        o->reply.code == 535 || !is_judged || is_auth_named)
        return false;
    return o->stage == HKY_STAGE_MAIL || one_of(words, text, true);
}

void hky_probe_cure(const struct hky_relay *relay, const struct hky_outcome *o, const char *lang, struct hky_buf *out)
{
    char text[HKY_REPLY_TEXT + 32];
    if (o->class == HKY_CLASS_OK)
        return;
    hky_reply_format(&o->reply, text, sizeof(text));
    bool is_ja = lang != NULL && strncmp(lang, "ja", 2) == 0;
    if (is_sender_refused(relay, o, hky_str_z(text))) {
        hky_buf_add_z(out, is_ja ? WRONG_SENDER_JA : WRONG_SENDER_EN);
        return;
    }
    const struct cure *c = cures;
    while (!is_hit(c, relay, o, hky_str_z(text)))
        c++; /* the last one fits always */
    hky_buf_add_z(out, is_ja ? c->ja : c->en);
}
