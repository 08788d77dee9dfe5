std = "lua54"
max_line_length = 180
files["scripts/hikyaku/*.lua"] = {}
files["examples/**/*.lua"] = { globals = {}, read_globals = {
  "engine", "relay", "relays", "route", "rows", "step", "secret", "env", "include", "list", "matcher", "carriers",
  "domains", "classes", "time", "json", "note", "split", "policy", "test" } }
