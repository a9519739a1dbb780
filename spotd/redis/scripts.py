"""Lua scripts, each of which Redis runs in one step. A leader's script first checks the leader key.

``KEYS`` and ``ARGV`` stand above each. A script that returns 0 did nothing, because the leader key
does not hold the token.
"""

from __future__ import annotations

# A hash of ours that has another type was written by another program. It is replaced.
_MEND = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[2]) end
"""
# KEYS leader last seq; ARGV token channel-prefix highest-seq too-high-a-seq lines. A line is the
# JSON of one update, which begins {"symbol":"SPY". One argument for all updates costs the client
# far less than two for each. The hash is written in steps, because unpack has a limit.
# A batch whose seq is not above the published one was under way for too long, and is dropped.
# A seq is read as the port reads it. Anything else that counted as a seq here would refuse every
# batch below it, and the leader, which does not know it, would not rise above it.
# The batch is kept before it is published: a server that is out of memory then publishes nothing,
# instead of the same again and again.
PUBLISH = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local seq = redis.pcall('GET', KEYS[3])
seq = type(seq) == 'string' and (string.match(seq, '^%d+$') or string.match(seq, '^(%d+) '))
local highest = seq and #seq <= 16 and tonumber(seq)
if highest and highest < tonumber(ARGV[4]) and highest >= tonumber(ARGV[3]) then return 0 end
local lines, from, fields, n = ARGV[5], 1, {{}}, 0
while true do
  local to = string.find(lines, '\\n', from, true)
  if not to then break end
  local json = string.sub(lines, from, to - 1)
  fields[n + 1] = string.match(json, '^"([^"]*)"', 11)
  fields[n + 2] = json
  n = n + 2
  from = to + 1
end
{_MEND}
for i = 1, n, 1000 do redis.call('HSET', KEYS[2], unpack(fields, i, math.min(i + 999, n))) end
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. ARGV[1])
for i = 1, n, 2 do redis.call('PUBLISH', ARGV[2] .. fields[i], fields[i + 1]) end
return 1
"""
# KEYS leader states; ARGV token events-channel, how many removed, then field json …: the removed
# with what announces their end, then the changed. An end is announced where a field was there.
WRITE_STATES = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
{_MEND}
local first = 4 + 2 * tonumber(ARGV[3])
for i = 4, first - 1, 2 do
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
    redis.call('PUBLISH', ARGV[2], ARGV[i + 1])
  end
end
for i = first, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('PUBLISH', ARGV[2], ARGV[i + 1])
end
return 1
"""
# KEYS leader status; ARGV token ttl-ms json events-channel-or-empty
WRITE_STATUS = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[3]) end
return 1
"""
# KEYS leader; ARGV token events-channel json
ANNOUNCE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
"""
# KEYS leader hash; ARGV token field …
DROP_FIELDS = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
{_MEND}
redis.call('HDEL', KEYS[2], unpack(ARGV, 2))
return 1
"""
# KEYS leader seq; ARGV token ttl-ms former-token. Returns 0 (another's), 1 (renewed) or 2
# (acquired), and the seq. SET renews the key, because it fails where publishing would fail too:
# when the server is out of memory.
LEAD = """
local held = redis.call('GET', KEYS[1])
local seq = redis.pcall('GET', KEYS[2])
if type(seq) ~= 'string' then seq = false end
if held and held ~= ARGV[1] and held ~= ARGV[3] then return {0, seq} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if held == ARGV[1] then return {1, seq} end
return {2, seq}
"""
# KEYS leader status; ARGV token
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""
