-- An account is to be given up, or is in trouble: another one sends its mail, queued and new, and no route is rewritten.
-- Normally you type a command for that: hikyaku relay drain gmail --to ses
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

-- The same as a declaration: every step that names gmail uses ses, with the From rule of ses.
relay "gmail" { preset = "gmail", user = "shop@gmail.com", password = secret "gmail", instead = "ses" }
relay "ses"   { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

route "vip" { priority = 10, to = "vip.example", via = { "gmail", "ses" } }
route "all" { priority = 90, to = "*", via = "gmail" }
