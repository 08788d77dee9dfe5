---@meta hikyaku
-- For editors (lua-language-server): what scripts may use, and what they see of a recipient. Base, string, table, math and
-- utf8 are there, trimmed; io, os, package, debug, coroutine and load are not. Globals are frozen after loading.

---@class secret  opaque: cannot be printed, joined or compared; allowed as password and key

---Name a secret. It is read when it is first needed: $HIKYAKU_SECRET_NAME, $CREDENTIALS_DIRECTORY/name, secrets/name beside
---the policy (readable by the owner only), or the output of `command` (no shell, 10 s). run and reload refuse a policy
---with a secret that is missing; check names it.
---@param name string  letters, digits, "." "_" "/" "-", no ".."
---@param options? { command?: string[] }
---@return secret
function secret(name, options) end

---The value of an environment variable when the policy is loaded.
---@param name string
---@param default? string|boolean
---@return string|boolean|nil  the default, or nil, when it is not set
function env(name, default) end

---Run another file of the policy's folder, once; returns what it returns.
---@param path string  relative, inside the policy's folder
---@return any
function include(path) end

---A set from a file: addresses, domains and .domains, one a line, # comments. It is read again when the file
---changes and has then rested for two seconds; write another file and rename it, so that nobody reads half a list.
---@param path string  relative, inside the policy's folder
---@return set
function list(path) end

---Declare a condition that routes and rows use by name.
---@param name string
---@param f fun(r: recipient): boolean
function matcher(name, f) end

---Write a line that `hikyaku explain` shows, and that goes to the log.
---@param text string
function note(text) end

---Domains of Japanese carriers, old ones included.
---@type { docomo: set, au: set, softbank: set, ymobile: set, rakuten: set, all: set }
carriers = {}

---@type { freemail: set }
domains = {}

---Classes for a step's `on`: ours (another way may cure it), theirs (about the recipient), content, temporary.
---@type { ours: class[], theirs: class[], content: class[], temporary: class[] }
classes = {}

time = {}

---Calendar parts in engine.timezone.
---@param t? integer  Unix seconds; default now (in functions only)
---@return { year: integer, month: integer, day: integer, hour: integer, min: integer, sec: integer, wday: integer, yday: integer }
function time.date(t) end

---Unix seconds of "2026-12-01" or "2026-12-01 10:00" in engine.timezone. Text that is no date is an error.
---@param text string
---@return integer
function time.parse(text) end

---Days since that date, in engine.timezone; negative before it. In functions only.
---@param date string
---@return integer
function time.days_since(date) end

json = {}

---The value of a JSON text. Text that is not JSON is an error.
---@param text string
---@return any
function json.decode(text) end

---The JSON text of a value.
---@param value any
---@return string
function json.encode(value) end

---One recipient; valid in the call only, read-only.
---@class recipient
---@field address string  as it was given, domain in lower case
---@field localpart string
---@field domain string
---@field sender string  envelope sender; "" is the null sender
---@field author { address: string, domain: string, name: string }
---@field scenario string|nil
---@field tags table<string, true>
---@field vars table<string, string>
---@field user string|nil  login of the client
---@field client string  address of the client
---@field source string  how the mail came in: "smtp" or "sendmail"
---@field deadline integer|nil  Unix seconds
---@field now integer  Unix seconds
---@field arms table<string, string>  the arm of each experiment
---@field attempts attempt[]  the last ones, oldest first
---@field message message
local recipient = {}

---A number in [0, 1) of salt and address, the same at every call and restart.
---@param salt? string
---@return number
function recipient:hash(salt) end

---@class message
---@field id string
---@field size integer  octets
---@field subject string  decoded, UTF-8
local message = {}

---First field of that name, decoded to UTF-8; nil when there is none.
---@param name string
---@return string|nil
function message:header(name) end

---All fields of that name.
---@param name string
---@return string[]
function message:headers(name) end

---@class attempt
---@field relay string
---@field account string
---@field step integer
---@field copy integer
---@field class class
---@field scope "recipient"|"domain"|"message"|"sender"|"relay"|"path"
---@field stage "connect"|"greeting"|"hello"|"tls"|"auth"|"mail"|"rcpt"|"data"|"dot"|"dsn"
---@field code integer|nil  nil for causes on our side
---@field enhanced string|nil  "5.7.1"
---@field text string
---@field temporary boolean
---@field retry_after integer|nil  seconds that the text named
---@field at integer  Unix seconds
---@field latency number  seconds
