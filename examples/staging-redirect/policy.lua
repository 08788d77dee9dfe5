-- One policy for production and staging. In staging nothing reaches a customer: every connection goes to a sink, and only
-- our own addresses are sent to at all.
--   production   hikyaku run policy.lua
--   staging      HIKYAKU_SINK=127.0.0.1:2526 hikyaku run policy.lua
local sink = env("HIKYAKU_SINK", false)
local staff = { "shop.example", ".shop.example", "tester@gmail.com" }

engine {
  hostname = "mail.shop.example",
  listen = "127.0.0.1:2525",
  owner = "owner@shop.example",
  redirect = sink,                 -- false: nothing is redirected
  only_to = sink and staff or "*", -- mail to others is held, and can be looked at
}

relay "own"    { mx = true }
relay "docomo" { preset = "docomo", user = "shop-d-account", password = secret "docomo", from = "shop@docomo.ne.jp" }

route "docomo" { priority = 10, to = carriers.docomo, via = { step "own" { tries = 1 }, "docomo" } }
route "rest"   { priority = 90, to = "*", via = "own" }
