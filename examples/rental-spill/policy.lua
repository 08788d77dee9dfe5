-- The cheap server sends as much as its cap allows; mail that would wait too long is sent by the dearer one.
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

-- Ten a minute is what the provider allows. A cap holds in every 60 seconds, not in every minute of the clock, and also
-- over restarts.
relay "rental" { host = "smtp.rental.example", port = 587, user = "shop", password = secret "rental",
                 cap = { "10/min", "5000/day" }, sends_as = "shop.example" }
relay "ses"    { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- A recipient whose turn would come in more than five minutes moves to the next step. Without `wait` it would wait.
route "all" { to = "*", via = { step "rental" { wait = "5m" }, "ses" } }
