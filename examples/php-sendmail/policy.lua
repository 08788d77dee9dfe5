-- Programs that know no SMTP (PHP's mail(), cron, git send-email) call sendmail. What a machine writes to its
-- administrator must not go the way of the shop's mail.
engine { hostname = "www.shop.example", listen = "127.0.0.1:2525", owner = "admin@shop.example" }

relay "office" { host = "smtp.office.example", port = 587, user = "machines", password = secret "office",
                 from = "machines@shop.example" }
relay "ses"    { preset = "ses", user = "AKIAEXAMPLE", password = secret "ses", sends_as = "shop.example" }

-- cron and the like write as root@www.shop.example, or www-data@localhost, to somebody of ours. They are not bulk mail,
-- and nobody answers them: they go out as machines@shop.example.
matcher("from a machine", function(r)
  return r.source == "sendmail" and (r.author.localpart == "root" or r.author.domain == "localhost")
end)
route "machines" { priority = 10, to = { "shop.example", ".shop.example" }, when = "from a machine", via = "office" }

-- The web shop's own mail, by mail() with the parameter -fbounce@shop.example
route "shop" { priority = 50, to = "*", author = { "shop.example", ".shop.example" }, via = "ses" }

-- A contact form writes as the visitor: its mail is sent as forms@shop.example, with the visitor's address in Reply-To.
route "forms" { priority = 90, to = "*", from = "forms@shop.example", via = "ses" }
