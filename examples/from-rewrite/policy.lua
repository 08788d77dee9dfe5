-- Members write as themselves, from gmail.com or docomo.ne.jp. Our server may not send as them (DMARC), so From becomes
-- ours; their name stays and their address goes to Reply-To.
engine { hostname = "mail.shop.example", listen = "127.0.0.1:2525", owner = "owner@shop.example" }

-- {id} makes bounces come back with the message's id in their address
relay "own" { mx = true, envelope = "b+{id}@bounce.shop.example" }

-- a mailbox of ours: its preset knows that Gmail sends as nobody else
relay "gmail" { preset = "gmail", user = "shop@gmail.com", password = secret "gmail" }

-- Mail written as that mailbox is sent through it and keeps its From.
route "as gmail" { priority = 5, to = "*", author = "shop@gmail.com", via = "gmail" }

route "freemail" {
  priority = 10,
  to = "*",
  author = { domains.freemail, carriers.all },
  from = "members@shop.example",
  via = "own",
}

-- From is ours already; when our server is blocked, the mailbox sends, and From is rewritten to shop@gmail.com.
route "rest" { priority = 90, to = "*", via = { "own", step "gmail" { on = classes.ours } } }
