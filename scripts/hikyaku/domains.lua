-- domains -- sets of domains that are no carriers. `freemail`: mailbox providers at which anybody can have an address.
-- A From of theirs passes DMARC only when it is sent through the provider itself. General knowledge,
-- 2026-11; a domain that is missing is one entry in a set of your own.
-- This file is compiled into the program; a changed copy of it is not read. A policy makes its own set of
-- these and others: local free = { domains.freemail, "mail.example" }; see PRESETS AND SETS in hikyaku-policy(5).
return {
  freemail = {
    -- Google
    "gmail.com", "googlemail.com",
    -- Yahoo! JAPAN
    "yahoo.co.jp", "ybb.ne.jp",
    -- Yahoo, AOL
    "yahoo.com", "ymail.com", "rocketmail.com", "yahoo.co.uk", "yahoo.fr", "yahoo.de", "yahoo.it", "yahoo.es",
    "yahoo.ca", "yahoo.co.in", "yahoo.com.br", "yahoo.com.tw", "yahoo.com.hk", "yahoo.com.sg", "yahoo.com.au",
    "yahoo.co.id", "yahoo.co.kr", "aol.com", "aim.com",
    -- Microsoft
    "outlook.com", "outlook.jp", "hotmail.com", "hotmail.co.jp", "live.jp", "live.com", "msn.com", "hotmail.co.uk",
    "hotmail.fr", "hotmail.de", "hotmail.it", "outlook.fr", "outlook.de",
    -- Apple
    "icloud.com", "me.com", "mac.com",
    -- others with DMARC policies of their own
    "gmx.com", "gmx.de", "gmx.net", "web.de", "mail.ru", "yandex.ru", "yandex.com", "proton.me", "protonmail.com",
    "zoho.com", "fastmail.com", "qq.com", "163.com", "126.com", "naver.com", "excite.co.jp", "nifty.com", "goo.jp",
    "infoseek.jp",
  },
}
