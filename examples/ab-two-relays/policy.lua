-- Which of two ways arrives better? Half of the addresses are served by our server, half by Amazon SES; each half has the other
-- way as its fallback, so that nobody goes without mail for the sake of the comparison.
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

relay "own" { mx = true }
relay "ses" { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- Mail that a customer waits for takes no part in the experiment.
route "orders" { priority = 5, to = "*", tag = "order", via = { "ses", "own" } }

route "compare" {
  priority = 10,
  to = "*",
  via = split "own-or-ses" {
    { arm = "own", share = 50, via = { "own", "ses" } },
    { arm = "ses", share = 50, via = { "ses", "own" } },
  },
}
