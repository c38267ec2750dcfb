"""The Lua filter that gives each request its affinity key.

The key is a hash of the tenant and of the session, or of the beginning of the prompt, so requests
that can share a prefix cache meet the same pod, in every revision. The beginning ends with the
first user message, if that is short enough: what follows grows with every turn of a chat, which
would move to another pod as long as it is shorter than the prefix. Envoy's Maglev table turns the
key into a pod, with bounded load.
"""

from __future__ import annotations

KEY_HEADER = "x-llmfleet-key"
TENANT_HEADER = "x-llmfleet-tenant"
SESSION_HEADER = "x-session-id"
SEARCH_BYTES = 4096
"""How far into the body the prompt's field is looked for."""

# The hash is two 32-bit lanes of xor, rotate and add, with the murmur3 finaliser's shifts: LuaJIT
# has no exact 32-bit multiplication of doubles, and Envoy hashes the header once more (xxHash64).
# Words are read through the FFI, four bytes at a time: 4 KiB take about 1 µs once compiled.
_SCRIPT = """
local ffi = require("ffi")
local bit = require("bit")
local bxor, rol, tobit, tohex = bit.bxor, bit.rol, bit.tobit, bit.tohex
local cast, find, sub, byte = ffi.cast, string.find, string.sub, string.byte
local bytes_t, words_t = ffi.typeof("const uint8_t*"), ffi.typeof("const uint32_t*")

-- Of the bytes first … last of text, in place: a copy of 4 KiB costs more than its hash.
local function hash(text, first, last, seed)
  local n = last - first + 1
  local a, b = tobit(seed), tobit(bxor(n, 0x5bd1e995))
  local bytes = cast(bytes_t, text) + (first - 1)
  local words = cast(words_t, bytes)
  local count = bit.rshift(n, 2)
  for i = 0, count - 1 do
    local w = tobit(words[i])
    a = tobit(rol(bxor(a, w), 13) + a * 4 + b)
    b = tobit(rol(b + w, 7) + bxor(a, rol(w, 16)))
  end
  local rest = 0
  for i = count * 4, n - 1 do rest = rest * 256 + bytes[i] end
  a = tobit(bxor(a, rest) + rol(b, 5))
  b = tobit(rol(bxor(b, bit.rshift(a, 15)), 11) + a)
  return bxor(a, bit.rshift(b, 13)), b
end

local function prompt_start(head)
  local first = find(head, '"messages"', 1, true)
  local other = find(first and sub(head, 1, first) or head, '"prompt"', 1, true)
  first = other or first
  other = find(first and sub(head, 1, first) or head, '"input"', 1, true)
  return other or first or 1
end

-- Where the next byte that is no white space stands, and the byte.
local function visible(text, at)
  while true do
    local c = byte(text, at)
    if c ~= 32 and c ~= 10 and c ~= 13 and c ~= 9 then return at, c end
    at = at + 1
  end
end

-- Where the string begins that is the value of a field whose name ends before `at`.
local function value_begins(text, at)
  local colon, c = visible(text, at)
  if c ~= 58 then return nil end
  local quote, q = visible(text, colon + 1)
  return q == 34 and quote or nil
end

-- Where the text of the first user message ends; what follows differs from turn to turn. It is a
-- string, or the first text in a list of parts.
local function first_question_ends(text, from)
  local _, last, next_byte = nil, from - 1, nil
  repeat
    _, last = find(text, '"user"', last + 1, true)
    if not last then return nil end
    _, next_byte = visible(text, last + 1)
  until next_byte ~= 58  -- it was a field of that name
  if next_byte == 125 then return last end  -- the content came before the role
  _, last = find(text, '"content"', last + 1, true)
  if not last then return nil end
  local at = value_begins(text, last + 1)
  while not at do
    _, last = find(text, '"text"', last + 1, true)
    if not last then return nil end
    at = value_begins(text, last + 1)
  end
  while true do
    at = find(text, '"', at + 1, true)
    if not at then return nil end
    local before = at - 1
    while byte(text, before) == 92 do before = before - 1 end  -- backslashes: an even number?
    if (at - before) % 2 == 1 then return at end
  end
end

function envoy_on_request(handle)
  local body = handle:body()
  local headers = handle:headers()  -- taken after the body, whose waiting ends an older one's life
  local tenant = headers:get("@TENANT@")
  local text = headers:get("@SESSION@")
  local seed, first, last = 1, 1, text and #text
  if not text then
    if not body then return end
    local length = body:length()
    text = body:getBytes(0, length < @SEARCH@ and length or @SEARCH@)
    first = prompt_start(text)
    last = first - 1 + @PREFIX@
    if last > length then last = length end
    local ends = first_question_ends(text, first)
    if ends and ends < last then
      last = ends
    elseif last > #text then
      text = body:getBytes(first - 1, last - first + 1)
      first, last = 1, #text
      last = first_question_ends(text, first) or last
    end
    seed = 2
  end
  if tenant and tenant ~= "" then seed = bxor(seed, (hash(tenant, 1, #tenant, 3))) end
  local a, b = hash(text, first, last, seed)
  headers:replace("@KEY@", tohex(a) .. tohex(b))
end
"""


def lua_script(prefix_bytes: int) -> str:
    """The filter's source for a prefix of ``prefix_bytes`` bytes (1 … 65536)."""
    values = {
        "@TENANT@": TENANT_HEADER,
        "@SESSION@": SESSION_HEADER,
        "@SEARCH@": str(SEARCH_BYTES),
        "@PREFIX@": str(prefix_bytes),
        "@KEY@": KEY_HEADER,
    }
    script = _SCRIPT
    for mark, value in values.items():
        script = script.replace(mark, value)
    return script
