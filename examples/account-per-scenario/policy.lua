-- Each scenario (a campaign, a step-mail series) sends by its own account, and its application can name no other. Mail
-- that a customer waits for overtakes all of them.
engine {
  hostname = "mail.shop.example",
  owner = "owner@shop.example",
  listen = {
    addr = "127.0.0.1:2525",
    users = {
      spring = { password = secret "login-spring", scenario = "spring", sender = "spring@shop.example" },
      autumn = { password = secret "login-autumn", scenario = { "summer", "autumn" }, sender = "shop.example" },
      shop   = { password = secret "login-shop", sender = "shop.example" },
    },
  },
}

relay "shop-a" { preset = "gmail", user = "shop.a@gmail.com", password = secret "gmail-a" }
relay "shop-b" { preset = "gmail", user = "shop.b@gmail.com", password = secret "gmail-b" }
relay "ses"    { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- override puts the route before all others, those of scenarios included; rank sends its mail first when a lane is full.
route "urgent" { override = true, rank = "urgent", to = "*", tag = "urgent", via = { "ses", "shop-a" } }

route "spring" { to = "*", scenario = "spring", via = { "shop-a", "ses" } }
route "autumn" { to = "*", scenario = { "summer", "autumn" }, via = { "shop-b", "ses" } }

-- Mail without a scenario.
route "rest" { to = "*", via = "ses" }
