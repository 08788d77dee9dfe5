-- Our own server first, because it is free and its From is ours; when a carrier blocks it, another way.
engine {
  hostname = "mail.shop.example",
  listen = "127.0.0.1:2525",
  owner = "owner@shop.example",
  timezone = "Asia/Tokyo",
}

relay "own"    { mx = true }
relay "rental" { host = "smtp.rental.example", port = 587, user = "shop", password = secret "rental", cap = "10/min",
                 sends_as = "shop.example" }
relay "docomo" { preset = "docomo", user = "shop-d-account", password = secret "docomo", from = "shop@docomo.ne.jp" }

-- One try; "blocked" goes on at once, "later" within two hours. docomo's own server comes last: it may send little, and
-- only as itself.
route "docomo" {
  priority = 10,
  to = carriers.docomo,
  via = { step "own" { tries = 1, within = "2h" }, "rental", "docomo" },
}

route "carriers" {
  priority = 20,
  to = carriers.all,
  via = { step "own" { tries = 1, within = "2h" }, "rental" },
}

-- For all others the rental server is used only for failures that another relay can cure, not for unknown addresses.
route "rest" {
  priority = 90,
  to = "*",
  via = { "own", step "rental" { on = classes.ours } },
}
