std = "lua54"
max_line_length = 180
-- stubs for editors: nothing in them is used by themselves
files["scripts/hikyaku/annotations/*.lua"] = { ignore = { "111", "112", "113", "121", "122", "131", "212", "211", "143", "142", "241", "631" } }
local policy_words = {
  "engine", "relay", "relays", "route", "rows", "step", "secret", "env", "include", "list", "matcher", "carriers",
  "domains", "classes", "time", "json", "note", "split", "ramp", "resend", "limit",
  "on", "action", "policy", "test" }
files["examples/**/*.lua"] = { read_globals = policy_words }
files["tests/policy/*.lua"] = { read_globals = policy_words }
