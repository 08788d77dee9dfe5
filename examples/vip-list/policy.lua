-- Some recipients are worth more: a list that the shop's program writes, and orders above a sum.
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

relay "own" { mx = true }
relay "ses" { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- One address, domain or .domain a line. A changed file is read again by itself; a broken one keeps the old list.
local vip = list "vip.txt"

-- The variable that the application sets with X-Hikyaku-Var: sum=120000
matcher("large order", function(r)
  return r.tags.order and (tonumber(r.vars.sum) or 0) >= 100000
end)

route "vip"   { priority = 10, to = vip, rank = "urgent", via = { "ses", "own" } }
route "order" { priority = 20, to = "*", when = "large order", rank = "urgent", via = { "ses", "own" } }
route "rest"  { priority = 90, to = "*", except = "example.net", via = { "own", step "ses" { on = classes.ours } } }

-- a partner who wants his mail from one address only
route "partner" { priority = 90, to = "example.net", from = "partner@shop.example", via = "ses" }
