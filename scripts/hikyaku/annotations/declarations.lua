---@meta hikyaku
-- For editors (lua-language-server): what a policy may declare. Durations are "90s" "10m" "2h" "3d" or seconds, sizes
-- "25M", caps "N/WINDOW" or "N recipients/WINDOW" with WINDOW s, min, h, day, month or a duration. An unknown key, relay,
-- class, set, matcher or file is an error at load, with file and line.

---@alias duration string|integer  "90s" "10m" "2h" "3d", or seconds
---@alias size string|integer  "35M" "512K", or octets
---@alias cap string  "10/min" "500 recipients/day" "100/15m"
---@alias condition string|set|(string|set|condition)[]  an address, a domain, ".domain" (its subdomains), "*", a set, or a table of these
---@alias class "ok"|"bad_mailbox"|"bad_domain"|"inactive"|"mailbox_full"|"filtered"|"auth_policy"|"blocked_ip"|"tls"|"size_format"|"quota_exhausted"|"relay_auth"|"relay_denied"|"rate_limited"|"reputation_content"|"network"|"system_temp"|"unknown"|"ambiguous"|"suppressed"|"expired"
---@alias reason "full"|"paused"|"sends_as"

---@class set  a set of addresses and domains: carriers.docomo, domains.freemail, list "vip.txt"
local set = {}

---Is the address or domain in the set?
---@param address string
---@return boolean
function set:has(address) end

---@class listen
---@field addr string  "127.0.0.1:2525", "[::1]:2525"
---@field tls? "starttls"|"implicit"  without it the listener is plain
---@field cert? string  PEM file, with its chain
---@field key? string  PEM file
---@field users? table<string, listen_user>  logins; AUTH is then required
---@field allow? string[]  addresses or networks ("10.0.0.0/8") that may send without a login

---@class listen_user
---@field password secret
---@field scenario? string|string[]  scenarios this login may name; default: any
---@field sender? string|string[]  addresses and domains this login may send as; default: any

---@class bounds  maxima
---@field line_octets? integer  a command line of a client; default 2048
---@field recipients? integer  of a message; default 1000
---@field header_octets? size  default "256K"
---@field header_lines? integer  default 1000
---@field received? integer  Received lines, more is a loop; default 50
---@field connections? integer  to the listeners; default 2000
---@field connections_per_client? integer  default 200
---@field errors? integer  of a client, then it is let go; default 20
---@field auth_tries? integer  default 3
---@field hosts? integer  mail hosts that one attempt is tried at, 1 to 20; default 5
---@field command? duration  how long a client may be silent; default "5m"
---@field data? duration  the same within content; default "5m"
---@field body_memory? size  bodies kept in memory; default "256M"
---@field spool_max? size  largest queue; default 0: no bound
---@field min_free? size  free space of the disk below which nothing is accepted; default "256M"
---@field segment? size  the largest file of the journal; default "64M"
---@field cold_after? duration  how long it rests before what is left in it is copied together
---@field lua_instructions? integer  of one call; default 100000
---@field lua_ms? integer  of one call; default 5
---@field lua_memory? size  of all scripts of a thread; default "64M"

---@class engine_options
---@field hostname string  name in EHLO, Received and Message-ID; a full domain name
---@field spool? string  folder of the journal, relative to the policy; default "spool"
---@field listen? string|listen|(string|listen)[]  default "127.0.0.1:2525"
---@field http? string  "127.0.0.1:8025": health and metrics
---@field owner? string  address that test mails and warnings go to
---@field timezone? string  "Asia/Tokyo"; default: the system's
---@field workers? integer  threads; default: cores - 1, at least 1
---@field resolver? string  "127.0.0.1:5353"; default: the system's
---@field retry? duration[]  waits between attempts, the last repeats; default { "5m", "15m", "1h", "4h" }
---@field expire? duration  how long delivery is tried; default "2d"
---@field parked? duration  how long a recipient that no route takes is kept; default "7d"
---@field max_message? size  default "35M"
---@field dsn? "each"|"digest"|"none"  failure notices; default each, none where a scenario is set
---@field bounds? bounds
---@field log? "error"|"warn"|"info"|"debug"
---@field redirect? string|false  "127.0.0.1:2526": every connection goes there, without AUTH (staging)
---@field only_to? condition  all other recipients are held

---Declare the engine's own settings, once.
---@param options engine_options
function engine(options) end

---@class oauth
---@field client? string  client id
---@field client_secret? secret
---@field refresh? secret  refresh token
---@field token_url? string
---@field scope? string
---@field token_command? string[]  a program that prints an access token; no shell

---@class relay_options
---@field preset? "gmail"|"yahoo_jp"|"hotmail"|"icloud"|"docomo"|"au"|"softbank"|"sendgrid"|"m365"|"ses"|"xserver"|"sakura"|"lolipop"
---@field host? string  "smtp.example.net", "ssl://smtp.example.net"
---@field port? integer
---@field tls? "implicit"|"starttls"|"opportunistic"|"none"  default by port: 465 implicit, 587 starttls, 25 opportunistic
---@field ca? string  PEM file instead of the system's authorities
---@field pin? string  SHA-256 of the certificate's public key, hex
---@field user? string
---@field password? secret|string  a plain string is taken with a warning
---@field auth? "auto"|"plain"|"login"|"cram-md5"|"scram-sha-256"|"xoauth2"|"oauthbearer"|"none"
---@field oauth? oauth
---@field from? string|false  the address this relay sends as when it may not send as the author; false: never rewrite
---@field sends_as? string|string[]  addresses, domains, "*"; default "*" without `from`, else `from` alone
---@field envelope? string  envelope sender; {id} and {rcpt} are replaced
---@field cap? cap|cap[]  of the account: host, port and user together
---@field connections? integer  at once; own delivery: to one site; default 10
---@field messages_per_connection? integer  default 100
---@field recipients_per_message? integer  default 50
---@field hello? string  name in EHLO; default engine.hostname
---@field source? string  local address to connect from
---@field mx? boolean  own delivery to the recipients' servers
---@field overlap? boolean  several transactions at once where the server allows it
---@field timeout? { connect?: duration, greeting?: duration, command?: duration, data?: duration, dot?: duration }
---@field localpart? "quoted"|"raw"  how "a..b"@docomo.ne.jp goes out; default quoted
---@field paused? boolean
---@field instead? string|relay  all steps of this relay go by that one

---@class relay  a handle; use it in `via` like the relay's name

---Declare a place where mail can go. `relay "name" { ... }`.
---@param name string
---@return fun(options: relay_options): relay
---@overload fun(name: string, options: relay_options): relay
function relay(name) end

---Relays by name: relays.own. A name that is not declared is an error.
---@type table<string, relay>
relays = {}

---@class step_options
---@field on? (class|reason)[]  enter the step only for these
---@field tries? integer  failures of network, system_temp or unknown before it is left; default 3
---@field within? duration  it is left when the next retry would be later; default: half of the time left until expire
---@field wait? duration  it is left when its turn would come later; default: it waits
---@field from? string|false
---@field envelope? string
---@field reply_to? string
---@field retry? duration[]

---@class step

---One step of a plan with its conditions. `step "own" { tries = 1 }`.
---@param relay string|relay
---@return fun(options: step_options): step
---@overload fun(relay: string|relay, options: step_options): step
function step(relay) end

---@alias plan string|relay|step|(string|relay|step)[]|split  at most 16 steps

---@class split

---Divide recipients among plans, by a hash of name and address: the same recipient always has the same arm.
---`split "name" { { arm = "a", share = 50, via = plan }, { arm = "b", share = 50, via = plan } }`; shares are per cent and
---add up to 100, or one arm has "rest". `by = "message"` draws for each message instead of each address.
---@param name string
---@return fun(arms: split_arms): split
function split(name) end

---@class split_arms
---@field [integer] { arm: string, share: number|"rest"|ramp, via: plan }
---@field by? "recipient"|"message"

---@class ramp

---A share that goes by day: ramp { start = "2026-12-01", 5, 10, 20, 50, 100 }, the last one stays. Another arm then has
---"rest".
---@param days table
---@return ramp
function ramp(days) end

---@class conditions
---@field to condition  needed; "*" is everyone
---@field except? condition
---@field sender? condition  the envelope sender; "<>" the null sender
---@field author? condition  the address in From
---@field scenario? string|string[]
---@field tag? string|string[]
---@field header? table<string, string>  name and glob, decoded, case ignored
---@field when? string|fun(r: recipient): boolean  a matcher's name, or a function
---@field priority? integer  smaller first; default 100
---@field override? boolean  before everything else, scenarios included

---@class route_options: conditions
---@field via plan|fun(r: recipient): plan|nil  nil: not mine, go on with the next route
---@field rank? "urgent"|"normal"|"bulk"  who goes first where a lane is full; default bulk with a scenario, else normal
---@field from? string|false
---@field envelope? string
---@field reply_to? string
---@field expire? duration
---@field retry? duration[]
---@field dsn? "each"|"digest"|"none"
---@field react? table<class, string>  what a class does on this route: "retry" "retry 30m" "next" "fail" "hold" "done"

---Declare who goes which way. The first route that matches and whose `via` yields something decides.
---@param name string
---@return fun(options: route_options)
---@overload fun(name: string, options: route_options)
function route(name) end

---@class row: relay_options, conditions
---@field name string
---@field relay? string  use the server of that relay or row
---@field enabled? boolean
---@field stop? boolean  the chain of rows ends here
---@field note? string

---Declare routes and relays as a table, or take it from a JSON file. All rows that match make one plan, in order.
---@param table row[]|string
function rows(table) end
