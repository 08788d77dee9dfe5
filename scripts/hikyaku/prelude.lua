-- prelude -- brings the shipped data into the shape that the loader reads. Runs in every Lua state before the policy.
--   presets   NAME -> { title, note, warn, oauth_only, token_url, keys = { { key, value, source, date }, ... } }
--   carriers, domains   NAME -> array of domains and .domains
-- returns the presets with `values` (key -> value) and `hosts` (its own, and `also`) added, and the sets in a fixed order with `carriers.all` among them.
-- This file is compiled into the program; a changed copy of it is not read.
local presets, carriers, domains = ...

for _, preset in pairs(presets) do
  local values = {}
  for _, key in ipairs(preset.keys) do values[key[1]] = key[2] end
  preset.values = values
  local hosts = { values.host }
  for _, host in ipairs(preset.also or {}) do hosts[#hosts + 1] = host end
  preset.hosts = hosts
end

local all, seen = {}, {}
for _, entries in pairs(carriers) do
  for _, entry in ipairs(entries) do
    if not seen[entry] then
      seen[entry] = true
      all[#all + 1] = entry
    end
  end
end
table.sort(all)
carriers.all = all

local sets = {}
for group, of in pairs { carriers = carriers, domains = domains } do
  for name, entries in pairs(of) do sets[#sets + 1] = { group = group, name = name, entries = entries } end
end
table.sort(sets, function(a, b)
  if a.group ~= b.group then return a.group < b.group end
  return a.name < b.name
end)

return presets, sets
