-- One table, no scripting: the rows that match a recipient are its plan, in order of priority. The first one sends, the
-- next ones are its fallback.
engine {
  hostname = "mail.shop.example",
  listen = "127.0.0.1:2525",
  owner = "owner@shop.example",
  timezone = "Asia/Tokyo",
}

rows {
  -- mail from one of our mailboxes is sent through that mailbox, whoever it is for: otherwise Gmail would rewrite From
  { name = "as gmail", priority = 2, relay = "gmail", author = "shop@gmail.com", to = "*" },

  -- phones and free mail: by the account whose domain it is
  { name = "docomo", priority = 10, preset = "docomo", user = "shop-d-account", password = secret "docomo",
    from = "shop@docomo.ne.jp", to = carriers.docomo },
  { name = "au", priority = 10, preset = "au", user = "shop-au-id", password = secret "au", from = "shop@au.com",
    to = carriers.au },
  { name = "softbank", priority = 10, preset = "softbank", user = "shop", password = secret "softbank",
    from = "shop@i.softbank.jp", to = carriers.softbank },
  { name = "yahoo", priority = 20, preset = "yahoo_jp", user = "shopid", password = secret "yahoo",
    from = "shop@yahoo.co.jp", to = "yahoo.co.jp" },
  { name = "icloud", priority = 20, preset = "icloud", user = "shop@icloud.com", password = secret "icloud",
    to = { "icloud.com", "me.com" } },
  { name = "gmail", priority = 30, preset = "gmail", user = "shop@gmail.com", password = secret "gmail",
    to = "gmail.com" },

  -- everyone else, and recipients that an account above could not serve
  { name = "sendgrid", priority = 90, preset = "sendgrid", password = secret "sendgrid",
    sends_as = "shop.example", to = "*" },
  { name = "rental", priority = 95, host = "smtp.rental.example", port = 587, user = "shop",
    password = secret "rental", cap = "10/min", to = "*" },

  -- a scenario with accounts of its own: its rows come before the rows for all mail
  { name = "spring phones", priority = 5, relay = "softbank", to = carriers.softbank, scenario = "spring" },

  { name = "old server", priority = 99, enabled = false, host = "smtp.old.example", port = 587, user = "shop",
    password = secret "old", to = "*", note = "closed in May" },
}
