-- presets -- what is known about the servers of mailbox providers and mail services, so that a relay needs a name, a
-- user and a password. A key is a relay's key; a relay that states the key itself wins. "$user" is replaced by the
-- account's user. Each value is followed by its source and the source's date, or when it was looked up. Values without evidence
-- are left out, and where a provider publishes no limit a careful one is stated as "careful default": raise it in the
-- relay when you know better. `oauth_only`: a password is an error. `token_url`: where
-- oauth gets its access tokens, unless the relay says it. `note` is advice, `warn` is printed by check. `also`:
-- other hosts of it, .domains of hosts, and @domains of users that share a host with another preset.
-- This file is compiled into the program; a changed copy of it is not read. A preset of your own is a function in
-- your policy that fills in the keys of a relay; see PRESETS AND SETS in hikyaku-policy(5).
return {
  gmail = {
    title = "Gmail and Google Workspace accounts",
    also = { "smtp.googlemail.com" },
    token_url = "https://oauth2.googleapis.com/token", -- Google, OAuth 2.0 endpoints, 2026-11
    note = "user is the full address; password is a 16-letter app password (needs 2-step verification), or use oauth. "
      .. "Google replaces any other From by the account's address. Workspace accounts: cap = \"2000 recipients/day\".",
    keys = {
      { "host", "smtp.gmail.com", "Google, SMTP settings; EHLO captures 2016-2026", "2026-08" },
      { "port", 465, "Google, SMTP settings; EHLO captures 2016-2026", "2026-08" },
      { "tls", "implicit", "Google, SMTP settings; EHLO captures 2016-2026", "2026-08" },
      { "from", "$user", "Gmail rewrites From to the account: gophish issue 1311, smtprelay issue 147", "2026-11" },
      { "sends_as", "$user", "Gmail rewrites From to the account: gophish issue 1311, smtprelay issue 147", "2026-11" },
      { "cap", "500 recipients/day", "Google, Gmail sending limits; rolling 24 hours", "2026-11" },
      { "recipients_per_message", 100, "Google, Gmail sending limits (SMTP)", "2026-11" },
      { "connections", 2, "careful default", "2026-11" },
    },
  },
  yahoo_jp = {
    title = "Yahoo! JAPAN Mail",
    note = "user is the Yahoo! JAPAN ID (not the address), from is the address; IMAP/POP/SMTP access must be switched on "
      .. "in the mailbox settings.",
    keys = {
      { "host", "smtp.mail.yahoo.co.jp", "Yahoo! JAPAN help H000007321, quoted by qiita.com/mironak", "2026-11" },
      { "port", 465, "Yahoo! JAPAN help; port 587 offered no STARTTLS in a transcript (qiita.com/mironak)", "2026-11" },
      { "tls", "implicit", "Yahoo! JAPAN help; port 587 offered no STARTTLS in a transcript", "2026-11" },
      -- the loader asks for `from` where the user is no address
      { "from", "$user", "to be stated in the relay: the user is no address, and it sends as the account only", "2026-11" },
      { "cap", { "100/h", "500/day" }, "careful default; no published limit was found", "2026-11" },
      { "recipients_per_message", 10, "careful default", "2026-11" },
      { "connections", 1, "careful default", "2026-11" },
    },
  },
  hotmail = {
    title = "Outlook.com, Hotmail, Live (personal accounts)",
    oauth_only = true,
    token_url = "https://login.microsoftonline.com/consumers/oauth2/v2.0/token", -- Microsoft identity platform, 2026-11
    also = { "smtp.live.com", "smtp.outlook.com", "smtp.hotmail.com", "@outlook.com", "@outlook.jp", "@hotmail.com",
      "@hotmail.co.jp", "@live.com", "@live.jp", "@msn.com" },
    note = "OAuth2 only: Microsoft switched passwords (app passwords too) off on 2024-09-16. user is the full address.",
    keys = {
      { "host", "smtp-mail.outlook.com", "Microsoft, POP/IMAP/SMTP settings for Outlook.com; EHLO captures", "2026-08" },
      { "port", 587, "Microsoft, POP/IMAP/SMTP settings for Outlook.com", "2026-08" },
      { "tls", "starttls", "Microsoft, POP/IMAP/SMTP settings for Outlook.com", "2026-08" },
      { "auth", "xoauth2", "Microsoft: end of Basic authentication 2024-09-16; EHLO says LOGIN XOAUTH2", "2024-09" },
      { "from", "$user", "Microsoft: 5.7.60, 5.2.252 SendAsDenied for others", "2026-08" },
      { "sends_as", "$user", "Microsoft: 5.7.60, 5.2.252 SendAsDenied for others", "2026-08" },
      { "cap", "300 recipients/day", "Microsoft, sending limits in Outlook.com: 5000 for subscribers, less without", "2026-11" },
      { "recipients_per_message", 100, "careful default; Microsoft says 500 for subscribers", "2026-08" },
      { "connections", 2, "Microsoft: 3 concurrent connections a mailbox (client submission)", "2026-08" },
    },
  },
  icloud = {
    title = "iCloud Mail",
    note = "user is the full address; password is an app-specific password.",
    keys = {
      { "host", "smtp.mail.me.com", "Thunderbird ISPDB; Apple support", "2026-03" },
      { "port", 587, "Thunderbird ISPDB; Apple support", "2026-03" },
      { "tls", "starttls", "Thunderbird ISPDB; Apple support", "2026-03" },
      { "from", "$user", "Apple: 550 5.7.0 From address is not one of your addresses (Ghost issue 17012)", "2026-11" },
      { "sends_as", "$user", "Apple: 550 5.7.0 From address is not one of your addresses (Ghost issue 17012)", "2026-11" },
      { "cap", { "1000/day", "1000 recipients/day" }, "Apple support 102198", "2026-11" },
      { "recipients_per_message", 100, "Apple support 102198 says 500; older copies 100", "2026-11" },
      { "connections", 2, "careful default", "2026-11" },
    },
  },
  docomo = {
    title = "docomo mail",
    note = "user is the d ACCOUNT id (not the address), from is the docomo.ne.jp address; password is the dedicated IMAP "
      .. "password. It is for a few mails of one person: no bulk mail, 20 an hour, one recipient each.",
    keys = {
      { "host", "smtp.spmode.ne.jp", "docomo, IMAP interface specification 4.3, quoted by qiita.com/garupon", "2024-10" },
      { "port", 465, "docomo, IMAP interface specification 4.3, quoted by qiita.com/garupon", "2024-10" },
      { "tls", "implicit", "docomo, IMAP interface specification 4.3: TLS 1.2", "2024-10" },
      -- the loader asks for `from` where the user is no address
      { "from", "$user", "to be stated in the relay: the user is no address, and it sends as the account only", "2026-11" },
      { "cap", "20/h", "careful default; no published limit was found", "2026-11" },
      { "connections", 1, "careful default", "2026-11" },
      { "recipients_per_message", 1, "careful default", "2026-11" },
    },
  },
  au = {
    title = "au mail (ezweb.ne.jp, au.com)",
    note = "user and password are those that the au mail settings show for other mail programs (not the address); from is "
      .. "the address. Little is known about this server: try `hikyaku probe` first. Send no bulk mail.",
    keys = {
      { "host", "smtp.ezweb.ne.jp", "MyASP manual, external SMTP settings", "2026-11" },
      { "port", 587, "MyASP manual, external SMTP settings; one user's configuration has 465", "2026-11" },
      { "tls", "starttls", "MyASP manual, external SMTP settings", "2026-11" },
      -- the loader asks for `from` where the user is no address
      { "from", "$user", "to be stated in the relay: the user is no address, and it sends as the account only", "2026-11" },
      { "cap", "20/h", "careful default; no published limit was found", "2026-11" },
      { "connections", 1, "careful default", "2026-11" },
      { "recipients_per_message", 1, "careful default", "2026-11" },
    },
  },
  softbank = {
    title = "SoftBank mail (i.softbank.jp)",
    note = "user is the part before the @ of the address, from is the address. After 500 recipients in 24 hours, failed "
      .. "ones included, sending is blocked for 24 hours.",
    keys = {
      { "host", "smtp.softbank.jp", "Thunderbird ISPDB", "2026-03" },
      { "port", 465, "Thunderbird ISPDB; 587 with STARTTLS in other manuals", "2026-03" },
      { "tls", "implicit", "Thunderbird ISPDB", "2026-03" },
      -- the loader asks for `from` where the user is no address
      { "from", "$user", "to be stated in the relay: the user is no address, and it sends as the account only", "2026-11" },
      { "cap", { "20/h", "450 recipients/day" },
        "SoftBank, measures against spam: 500 recipients in 24 hours, failed ones count; the rest is a careful margin", "2026-11" },
      { "connections", 1, "careful default", "2026-11" },
      { "recipients_per_message", 1, "careful default", "2026-11" },
    },
  },
  sendgrid = {
    title = "Twilio SendGrid",
    note = "password is an API key (the user, the word apikey, need not be stated); sends_as must name your verified domain or sender identities. A 250 means that "
      .. "SendGrid took the mail, not that it was delivered.",
    keys = {
      { "host", "smtp.sendgrid.net", "SendGrid documentation, SMTP ports", "2021" },
      { "port", 587, "SendGrid documentation, SMTP ports", "2021" },
      { "tls", "starttls", "SendGrid documentation, SMTP ports", "2021" },
      { "user", "apikey", "SendGrid documentation: the user is the word apikey", "2021" },
      { "recipients_per_message", 100, "careful default; SendGrid documentation says 1000", "2021" },
      { "messages_per_connection", 1000, "careful default; SendGrid documentation says 5000", "2021" },
    },
  },
  m365 = {
    title = "Microsoft 365 (Exchange Online, client submission)",
    -- Microsoft identity platform, 2026-11; an application of one tenant states its own, with its name in it
    token_url = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token",
    note = "user is the UPN, usually the address. Use oauth: passwords (SMTP AUTH Basic) are switched off by default from "
      .. "the end of December 2026. A full mailbox stops sending (sent mail is kept in it).",
    keys = {
      { "host", "smtp.office365.com", "Microsoft Learn, client SMTP submission; EHLO captures", "2026-08" },
      { "port", 587, "Microsoft Learn, client SMTP submission", "2026-08" },
      { "tls", "starttls", "Microsoft Learn, client SMTP submission", "2026-08" },
      { "from", "$user", "Microsoft: 5.7.60, 5.2.252 SendAsDenied without SendAs right", "2026-08" },
      { "sends_as", "$user", "Microsoft: 5.7.60, 5.2.252 SendAsDenied without SendAs right", "2026-08" },
      { "cap", { "30/min", "10000 recipients/day" }, "Microsoft, Exchange Online limits", "2026-08" },
      { "connections", 3, "Microsoft, SMTP submission improvements: 3 concurrent connections a mailbox", "2026-08" },
      { "recipients_per_message", 500, "Microsoft, Exchange Online limits", "2026-08" },
    },
  },
  ses = {
    title = "Amazon SES",
    also = { "email-smtp.ap-northeast-3.amazonaws.com", "email-smtp.us-east-1.amazonaws.com",
      "email-smtp.us-west-2.amazonaws.com", "email-smtp.eu-west-1.amazonaws.com" },
    note = "user and password are SMTP credentials of the region; host is Tokyo's; state another one for another region. "
      .. "sends_as must name your verified domain. SES replaces Message-ID and Date. State your sending quota as cap.",
    keys = {
      { "host", "email-smtp.ap-northeast-1.amazonaws.com", "Amazon SES developer guide, SMTP endpoints", "2022-11" },
      { "port", 465, "Amazon SES developer guide, SMTP endpoints", "2022-11" },
      { "tls", "implicit", "Amazon SES developer guide, SMTP endpoints", "2022-11" },
      { "recipients_per_message", 50, "Amazon SES developer guide, quotas", "2022-11" },
    },
  },
  xserver = {
    title = "Xserver rental server",
    also = { ".xserver.jp" },
    note = "state host = \"svNNNN.xserver.jp\" (your server's number); user is the full address.",
    keys = {
      { "port", 465, "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "tls", "implicit", "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "cap", { "1500/h", "15000/day" }, "Xserver, sending limits, collected by ezhp.jp and click.jp", "2020" },
      { "recipients_per_message", 50, "careful default", "2026-11" },
      { "connections", 2, "careful default", "2026-11" },
    },
  },
  sakura = {
    title = "Sakura rental server",
    also = { ".sakura.ne.jp" },
    note = "state host = \"NAME.sakura.ne.jp\" (your initial domain). Limits: about 100 in 15 minutes (Lite, Standard, "
      .. "Premium), 250 (Business, Pro), 600 (Managed).",
    keys = {
      { "port", 587, "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "tls", "starttls", "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "cap", "100/15m", "Sakura's answer, collected by click.jp: a guide value that varies with load", "2020" },
      { "recipients_per_message", 20, "careful default", "2026-11" },
      { "connections", 1, "careful default", "2026-11" },
    },
  },
  lolipop = {
    title = "Lolipop! rental server",
    note = "user is the full address. Limits are for the whole contract, not one address: Economy 100/hour and 1000/day, "
      .. "Lite 300 and 3000, Standard and above 1000 and 10000; state cap for a plan above Lite.",
    keys = {
      { "host", "smtp.lolipop.jp", "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "port", 465, "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "tls", "implicit", "the host's usual settings; `hikyaku probe` shows whether they work", "2026-11" },
      { "cap", { "100/h", "1000/day" }, "Lolipop! terms, prohibited acts: the Economy plan", "2026-11" },
      { "recipients_per_message", 20, "careful default", "2026-11" },
      { "connections", 2, "careful default", "2026-11" },
    },
  },
}
