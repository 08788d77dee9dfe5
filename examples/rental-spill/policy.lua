-- The cheap way first, as much as it takes; what would wait too long goes the dearer way.
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

-- Ten a minute is what the provider allows. A cap holds in every 60 seconds, not in every minute of the clock, and also
-- over restarts.
relay "rental" { host = "smtp.rental.example", port = 587, user = "shop", password = secret "rental",
                 cap = { "10/min", "5000/day" }, sends_as = "shop.example" }
relay "ses"    { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- Whose turn would come later than in five minutes does not wait for it. Without `wait` it would.
route "all" { to = "*", via = { step "rental" { wait = "5m" }, "ses" } }
