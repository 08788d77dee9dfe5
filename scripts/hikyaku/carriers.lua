-- carriers -- the address domains of Japanese mobile carriers, as sets for `to` and `except`.
-- "x.jp" is that domain alone, ".x.jp" its subdomains without itself. `carriers.all` is made of all of these.
-- Sources: Email::Address::JP::Mobile and Mail::Address::MobileJp (CPAN), jpmobile 2026-08, Airレジ FAQ; where marked
-- (general), general knowledge that no list in public code confirms. Legacy domains stay: mail portability (since
-- 2021-12) and old address lists keep them alive.
-- This file is compiled into the program; a changed copy of it is not read. A policy makes its own set of
-- these and others: local phones = { carriers.all, "mvno.example" }; see PRESETS AND SETS in hikyaku-policy(5).
return {
  docomo = {
    "docomo.ne.jp",
    "docomo.blackberry.com", "page.docomonet.or.jp",
    "em.nttpnet.ne.jp", ".em.nttpnet.ne.jp", ".nttpnet.ne.jp", -- docomo PHS, with cmchuo, cmtokai, ... .nttpnet.ne.jp
    "mopera.net", "mopera.ne.jp", -- (general)
  },
  au = {
    "ezweb.ne.jp", ".ezweb.ne.jp", "au.com", "biz.au.com",
    "uqmobile.jp", -- UQ mobile (general)
    ".ido.ne.jp",
    "dct.dion.ne.jp", "tct.dion.ne.jp", "hct.dion.ne.jp", "kct.dion.ne.jp", "cct.dion.ne.jp", "sct.dion.ne.jp",
    "qct.dion.ne.jp", "oct.dion.ne.jp",
    "sky.tkk.ne.jp", ".sky.tkk.ne.jp", "sky.tkc.ne.jp", ".sky.tkc.ne.jp", "sky.tu-ka.ne.jp", "cara.tu-ka.ne.jp",
    ".sky.tuka.ne.jp", "email.sky.tdp.ne.jp", "email.sky.kdp.ne.jp", "email.sky.cdp.ne.jp", "email.sky.dtg.ne.jp",
  },
  softbank = {
    "softbank.ne.jp", "i.softbank.jp", "disney.ne.jp",
    "d.vodafone.ne.jp", "h.vodafone.ne.jp", "t.vodafone.ne.jp", "c.vodafone.ne.jp", "k.vodafone.ne.jp",
    "r.vodafone.ne.jp", "n.vodafone.ne.jp", "s.vodafone.ne.jp", "q.vodafone.ne.jp",
    "jp-d.ne.jp", "jp-h.ne.jp", "jp-t.ne.jp", "jp-c.ne.jp", "jp-k.ne.jp", "jp-r.ne.jp", "jp-n.ne.jp", "jp-s.ne.jp",
    "jp-q.ne.jp",
  },
  ymobile = {
    "ymobile.ne.jp", "yahoo.ne.jp", -- yahoo.ne.jp is Y!mobile mail; yahoo.co.jp is Yahoo! JAPAN, no carrier
    "ymobile1.ne.jp", "y-mobile.ne.jp", -- (general)
    "willcom.com", "pdx.ne.jp", ".pdx.ne.jp",
    "emnet.ne.jp", "emobile.ne.jp", "emobile-s.ne.jp", -- the last two (general)
  },
  rakuten = {
    "rakumail.jp", -- (general)
  },
}
