---@meta hikyaku
-- For editors (lua-language-server): what a policy may declare. Durations are "90s" "10m" "2h" "3d" or seconds, sizes
-- "25M", caps "N/WINDOW" or "N recipients/WINDOW" with WINDOW s, min, h, day, month or a duration. An unknown key, relay,
-- class, set, matcher or file is an error at load, with file and line. The @field lines are those of the program's own
-- tables (hikyaku --manual annotations:OBJECT); a unit test compares them.

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
---@field addr string  Address and port: `"127.0.0.1:2525"`, `"[::1]:2525"`.
---@field tls? "starttls"|"implicit"  `starttls` or `implicit`; without it the listener has no TLS.
---@field cert? string|false  PEM file of the certificate with its chain, from the policy's folder.
---@field key? string|false  PEM file of the certificate's key, from the policy's folder.
---@field users? table<string, listen_user>|false  Logins: `{ NAME = { password =, scenario =, sender = } }`.
---@field allow? string|string[]|false  Networks that may send without a login, such as `"10.0.0.0/8"`.

---@class listen_user
---@field password secret  Password of the login: `secret "name"`.
---@field scenario? string|string[]  Scenarios that the login may name, by default any. If there is exactly one, mail that names none gets it.
---@field sender? string|string[]  Addresses and domains that the login may send as, in the envelope and in From, by default any.

---@class bounds  maxima
---@field line_octets? integer  Octets of a client's command line; default 2048.
---@field recipients? integer  Recipients of a message; default 1000.
---@field header_octets? size  Size of a header section, at most `512K`; default `256K`.
---@field header_lines? integer  Lines of a header section; default 1000.
---@field received? integer  Received fields of a message; a message with more is in a loop; default 50.
---@field connections? integer  Connections of clients; default 2000.
---@field connections_per_client? integer  Connections from one address, or from one /64 of IPv6; default 200.
---@field errors? integer  Errors of a client before its connection is closed; default 20.
---@field auth_tries? integer  Failed logins on one connection before it is closed; default 3.
---@field hosts? integer  How many mail hosts of a domain, or addresses of a relay, one attempt tries; default 5.
---@field body_memory? size  Memory for the bodies of messages that wait; default `256M`.
---@field spool_max? size  Size of the queue beyond which new mail gets 452; default 0: no bound.
---@field min_free? size  Free space of the disk below which new mail gets 452; default `256M`.
---@field segment? size  Size of the largest file of the journal; default `64M`.
---@field cold_after? duration  How long a file of the journal rests before what is left in it is copied to another one.
---@field lua_instructions? integer  Lua instructions of one call; default 100000.
---@field lua_ms? integer  Milliseconds of one call of Lua; default 5.
---@field lua_memory? size  Memory of all scripts of one worker; default `64M`.
---@field lookup? duration  How long one look-up of the policy may take; default `10s`.
---@field mail_hosts? integer  Domains whose mail hosts one worker remembers; default 10000.
---@field command? duration  How long a client may be silent between commands; default `5m`.
---@field data? duration  How long a client may be silent within a message; default `5m`.

---@class engine_options
---@field hostname? string  Name of this machine in EHLO, Received and Message-ID; a full domain name.
---@field spool? string  Folder of the queue, from the policy's folder; default `spool`.
---@field listen? string|listen|(string|listen)[]|false  Where mail comes in: `"addr:port"`, a listener, or a list of these; default `"127.0.0.1:2525"`.
---@field http? string|false  Address for `/healthz` and `/metrics`, on this machine only: `"127.0.0.1:8025"`; default: none.
---@field owner? string|false  Address for test mail, for warnings, and for failures that no sender can be notified of.
---@field timezone? string|false  Time zone of times of day, such as `"Asia/Tokyo"`; default: the system's.
---@field workers? integer  Number of worker threads; default: the processor's cores minus one, at least 1.
---@field resolver? string|false  DNS server as `"addr:port"`; default: the system's.
---@field retry? duration[]  Waits between attempts, at most 16, the last one repeats; default `{ "5m", "15m", "1h", "4h" }`.
---@field expire? duration  How long delivery to a recipient is tried; default `2d`.
---@field parked? duration  How long a recipient that no route takes waits for a policy that can decide; default `7d`.
---@field max_message? size  Size of the largest message that is accepted; default `35M`.
---@field dsn? "each"|"digest"|"none"  Failure notices: `each`, `digest` or `none`; default `each`, and `none` where a scenario is set.
---@field bounds? bounds  A table of maxima.
---@field log? "error"|"warn"|"info"|"debug"  How much is logged: `error`, `warn`, `info` or `debug`; default `info`.
---@field redirect? string|false  Every connection is made to this `"host:port"` instead, without TLS and AUTH; for staging.
---@field only_to? condition|false  Mail is sent to these recipients only; all others are held.

---Declare the engine's own settings, once.
---@param options engine_options
function engine(options) end

---@class oauth
---@field client? string  Client id.
---@field client_secret? secret  Client secret: `secret "name"`.
---@field refresh? secret  Refresh token: `secret "name"`.
---@field token_command? string[]  Program and arguments that print an access token; there is no shell.
---@field token_url? string  Where access tokens are fetched: https; http for loopback addresses only. Default: what the preset, or the preset of the host, knows.
---@field scope? string  Scopes to ask for.

---@class timeouts
---@field connect? duration  Until the connection is made; default `30s`.
---@field greeting? duration  For the greeting; default `60s`.
---@field command? duration  For the reply to a command; default `60s`.
---@field data? duration  For the reply to DATA, and while content is sent; default `2m`.
---@field dot? duration  For the reply to the end of a message; default `10m`.

---@class relay_options
---@field preset? "gmail"|"yahoo_jp"|"hotmail"|"icloud"|"docomo"|"au"|"softbank"|"sendgrid"|"m365"|"ses"|"xserver"|"sakura"|"lolipop"  Settings of a known provider (see `hikyaku presets`); keys that the relay states have priority.
---@field host? string  Name of the server; `ssl://` in front means TLS from the start.
---@field port? integer  Port of the server; default 587.
---@field tls? "implicit"|"starttls"|"opportunistic"|"none"  `implicit`, `starttls`, `opportunistic` or `none`; by default port 465 is implicit, 587 starttls, 25 opportunistic.
---@field ca? string|false  PEM file of the authorities to trust instead of the system's, from the policy's folder.
---@field pin? string|false  SHA-256 of the certificate's public key, in hex; asks for TLS, as `ca` does.
---@field user? string|false  Name to log in with.
---@field password? secret|string|false  Password to log in with: `secret "name"`; a plain string is taken with a warning.
---@field auth? "auto"|"plain"|"login"|"cram-md5"|"scram-sha-256"|"xoauth2"|"oauthbearer"|"none"  How to log in: `auto`, `plain`, `login`, `cram-md5`, `scram-sha-256`, `xoauth2`, `oauthbearer` or `none`; default `auto` with a user.
---@field oauth? oauth|false  OAuth2 instead of a password: where tokens come from.
---@field from? string|false  Address in From when the relay may not send as the author; `false`: never rewrite From.
---@field sends_as? string|string[]  Addresses and domains that the relay may send as, or `"*"`; default `"*"`, or only `from` where that is stated.
---@field envelope? string|false  Envelope sender; `{id}` and `{rcpt}` are replaced.
---@field cap? cap|cap[]|false  Most messages or recipients in a window, such as `"10/min"`, or a list of caps; counted for the account.
---@field connections? integer  Connections at the same time, in own delivery those of each worker to one site; default 10.
---@field messages_per_connection? integer  Messages on one connection; default 100.
---@field recipients_per_message? integer  Recipients in one transaction; default 50.
---@field hello? string|false  Name in EHLO; default: the engine's `hostname`.
---@field source? string|false  Address of this machine to connect from.
---@field mx? boolean  `true`: own delivery to the recipients' mail hosts; `port` is then for tests only.
---@field overlap? boolean  `false`: the next message waits for the reply to the last one; default `true`, where the server has shown that it can take messages without that.
---@field timeout? timeouts  How long to wait for the server, at each stage.
---@field localpart? "quoted"|"raw"  How an address such as `a..b@docomo.ne.jp` is written to the server: `quoted` or `raw`; default `quoted`.
---@field paused? boolean  `true`: no mail is sent through this relay.
---@field instead? string|relay|false  Another relay, through which all mail of this relay is sent.

---@class relay  a handle; use it in `via` like the relay's name

---Declare a server to which mail can be sent. `relay "name" { ... }`.
---@param name string
---@return fun(options: relay_options): relay
---@overload fun(name: string, options: relay_options): relay
function relay(name) end

---Relays by name: relays.own. A name that is not declared is an error.
---@type table<string, relay>
relays = {}

---@class step_options
---@field on? class|reason|(class|reason)[]  Classes and reasons for which the step is entered; for all others it is skipped.
---@field tries? integer  Failures of network, system_temp or unknown before the step is left; default 3.
---@field within? duration  How long the step may take; default: half of the time that is left until `expire`.
---@field wait? duration  Longest wait for the recipient's turn at the relay before the step is left for the reason full; default: no limit.
---@field from? string|false  From of its attempts; `false`: never rewrite From.
---@field envelope? string|false  Envelope sender; `{id}` and `{rcpt}` are replaced.
---@field reply_to? string|false  Address in Reply-To of its attempts.
---@field retry? duration[]  Waits between its attempts, the last one repeats; default: the route's.

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
---add up to 100, or one arm has "rest". `by = "message"` chooses an arm for each message instead of each address.
---@param name string
---@return fun(arms: split_arms): split
function split(name) end

---@class arm
---@field arm string  Name of the arm.
---@field share number|"rest"|ramp  Per cent of the recipients, `"rest"`, or `ramp { ... }`.
---@field via plan  The plan of the arm.

---@class split_arms
---@field [integer] arm
---@field by? "recipient"|"message"  Whether the hash of the `recipient` or of the `message` chooses the arm; default `recipient`.

---@class ramp

---A share that changes each day: ramp { start = "2026-12-01", 5, 10, 20, 50, 100 }, the last share stays. Another arm then has
---"rest".
---@param days table
---@return ramp
function ramp(days) end

---@class conditions
---@field to condition  The recipient; needed, `"*"` is everyone.
---@field except? condition|false  The recipient is none of these.
---@field sender? condition  The envelope sender; `"<>"` is the null sender.
---@field mx? condition|boolean  The mail hosts of the recipient's domain, such as `".outlook.com"`; in a row, `true` is own delivery.
---@field author? condition  The address in From.
---@field scenario? string|string[]  The message is of this scenario, or one of these.
---@field tag? string|string[]  The message has this tag, or one of these.
---@field header? table<string, string>  Header fields: `{ ["X-Foo"] = "glob*" }`, decoded, case ignored, all must match.
---@field when? string|fun(r: recipient): boolean  `function(r)` or the name of a matcher.
---@field override? boolean  `true`: the route comes before all others, also before those of a scenario.
---@field priority? integer  The smaller one comes first; default 100.

---@class route_options: conditions
---@field via plan|fun(r: recipient): plan|nil  Needed: a plan, or `function(r)` that returns one, or nil to go on with the next route.
---@field rank? "urgent"|"normal"|"bulk"  Which mail goes first where a lane is full: `urgent`, `normal` or `bulk`; default `bulk` with a scenario, else `normal`.
---@field from? string|false  From of all attempts; `false`: never rewrite From.
---@field envelope? string|false  Envelope sender; `{id}` and `{rcpt}` are replaced.
---@field reply_to? string|false  Address in Reply-To of all attempts.
---@field expire? duration  How long delivery is tried; default: the engine's.
---@field retry? duration[]  Waits between attempts, the last one repeats; default: the engine's.
---@field dsn? "each"|"digest"|"none"  Failure notices: `each`, `digest` or `none`; default: the engine's.
---@field react? table<class, "retry"|"next"|"fail"|"hold"|"done"|string>  What a class of failure does here: `retry`, `retry 30m`, `next`, `fail`, `hold` or `done`.

---Declare which recipients are sent through which relays. The first route that matches and whose `via` gives a plan decides.
---@param name string
---@return fun(options: route_options)
---@overload fun(name: string, options: route_options)
function route(name) end

---@class row: relay_options, conditions
---@field name string  Name of the row; needed.
---@field enabled? boolean  `false`: the row is ignored.
---@field note? string|false  A note for people.
---@field relay? string|relay  Relay or row whose server is used, instead of stating one.
---@field stop? boolean  `true`: the rows behind this one are no fallback for it.

---Declare routes and relays as a table, or read the table from a JSON file. All rows that match make one plan, in order.
---@param table row[]|string
function rows(table) end
