-- What examples/quickstart runs: three accounts that all are one `hikyaku sink` on this machine.
engine {
  hostname = "mail.shop.example",
  listen = "127.0.0.1:" .. env("QUICKSTART_PORT", "2525"),
  owner = "owner@shop.example",
  timezone = "Asia/Tokyo",
}

local sink = tonumber(env("QUICKSTART_SINK", "2526"))

relay "ours"   { host = "127.0.0.1", port = sink, tls = "none" }                                     -- plays our own server
relay "rental" { host = "127.0.0.1", port = sink + 1, tls = "none", cap = "60/min" }                 -- a rental server
relay "docomo" { host = "127.0.0.1", port = sink + 2, tls = "none", from = "shop@docomo.ne.jp" }     -- an account that sends as itself only

-- docomo: our server, and when it is blocked the docomo account, with docomo's From
route "docomo"   { priority = 10, to = carriers.docomo, via = { step "ours" { tries = 1 }, step "docomo" { on = { "blocked_ip", "filtered", "auth_policy" } } } }
-- the other phones: our server, then the rental server
route "carriers" { priority = 20, to = carriers.all, via = { step "ours" { tries = 1 }, "rental" } }
-- everyone else
route "rest"     { priority = 90, to = "*", via = { "ours", "rental" } }
