"""The scripts of the log on Redis: each changes the keys of one partition, as a whole or not at all."""

from __future__ import annotations

from typing import Final

# When memory is short Redis refuses a script's first write, and with it the whole script.
APPEND: Final = """
local found = redis.call('HGET', KEYS[2], ARGV[1]) or '0'
if found ~= ARGV[2] then return found end
local packs = 6 + 2 * ARGV[5]
for i = packs, #ARGV, 2 do redis.call('XADD', KEYS[1], '*', 'p', ARGV[i], 'n', ARGV[i + 1], 'h', ARGV[4]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
for i = 6, packs - 1, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""

# Appends only if nothing was appended since the head was read, so that a relay that slept through a restore can't leave a gap.
PUBLISH: Final = """
local head = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then head = info[i + 1] end end
end
if head ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2]) end
local time = redis.call('TIME')
local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for i = 3, #ARGV, 3 do redis.call('XADD', KEYS[1], ARGV[i] .. '-0', 'p', ARGV[i + 1], 'n', ARGV[i + 2], 'h', '0', 't', ms) end
return 1
"""

_PRECEDES: Final = """
local function precedes(one, other)
  local ms, seq = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_seq = string.match(other, '(%d+)-(%d+)')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or (ms == other_ms and tonumber(seq) < tonumber(other_seq))
end
"""

# XTRIM comes first: it is allowed when memory is full, and what follows a write in a script is, too.
TRIM: Final = f"""{_PRECEDES}
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
if precedes(redis.call('GET', KEYS[2]) or '0-0', ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1]) end
return 1
"""

RAISE: Final = f"""{_PRECEDES}
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'made', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'made')
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local head
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then head = info[i + 1] end end
if precedes(head, ARGV[1]) then redis.call('XSETID', KEYS[1], ARGV[1]) end
return 1
"""

BACKLOG: Final = """
local pending = {}
local from = '(' .. ARGV[1]
while true do
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 64)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    local n, h = 0, '0'
    for i = 1, #fields, 2 do
      if fields[i] == 'n' then n = tonumber(fields[i + 1]) elseif fields[i] == 'h' then h = fields[i + 1] end
    end
    pending[h] = (pending[h] or 0) + n
    from = '(' .. entry[1]
  end
end
local flat = {}
for h, n in pairs(pending) do flat[#flat + 1] = h; flat[#flat + 1] = n end
return {redis.call('HGETALL', KEYS[2]), flat, redis.call('GET', KEYS[3]) or '0-0'}
"""

READ: Final = "return {redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]), redis.call('HGETALL', KEYS[2])}"
