"""Lua scripts, each of which Redis runs in one step. A leader's script first checks the leader key.

``KEYS`` and ``ARGV`` stand above each. A leader's script that returns 0 did nothing, because the
leader key does not hold the token.
"""

from __future__ import annotations

import hashlib
from functools import cache


@cache
def digest_of(script: str) -> str:
    """Return the digest by which EVALSHA names a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


# A hash of ours that has another type was written by another program. It is replaced.
_MEND = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[2]) end
"""


def _fence(until_ms: str) -> str:
    """Return the lines that do nothing where a leader's call has no right to do it.

    ARGV[1] is the token. After ``until_ms`` by this clock nothing is done (0: no limit): a server
    that was frozen executes calls that were given up, and what they say is older than what a later
    call has written. In a cluster, another node may lead by then, and subscribers would hear older
    prices behind newer ones.
    """
    return f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local until_ms = tonumber({until_ms})
if until_ms > 0 then
  local time = redis.call('TIME')
  if tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000 > until_ms then return 0 end
end
"""


_FENCE = _fence("ARGV[2]")
# KEYS leader last seq; ARGV token channel-prefix highest-seq too-high-a-seq lines until-ms. A line
# is the JSON of one update, which begins {"symbol":"SPY". One argument for all updates costs the
# client far less than two for each. The hash is written in steps, because unpack has a limit.
# A batch whose seq is not above the published one was under way for too long, and is dropped.
# A seq is read as the port reads it. Anything else that counted as a seq here would refuse every
# batch below it, and the leader, which does not know it, would not rise above it.
# The batch is kept before it is published: a server that is out of memory then publishes nothing,
# instead of the same again and again.
PUBLISH = f"""
{_fence("ARGV[6] or '0'")}
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
# KEYS leader states; ARGV token until-ms events-channel, how many removed, then field json …: the
# removed with what announces their end, then the changed. An end is announced where a field was
# there.
WRITE_STATES = f"""
{_FENCE}
{_MEND}
local first = 5 + 2 * tonumber(ARGV[4])
for i = 5, first - 1, 2 do
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
    redis.call('PUBLISH', ARGV[3], ARGV[i + 1])
  end
end
for i = first, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('PUBLISH', ARGV[3], ARGV[i + 1])
end
return 1
"""
# KEYS leader status states; ARGV token until-ms ttl-ms json events-channel-or-empty. Returns one
# more than the number of stored states, or -1 where the user may not ask for it.
WRITE_STATUS = f"""
{_FENCE}
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[4]) end
local held = redis.pcall('HLEN', KEYS[3])
if type(held) == 'number' then return held + 1 end
if string.find(held.err, 'WRONGTYPE', 1, true) then return 1 end
return -1
"""
# KEYS leader; ARGV token until-ms events-channel json
ANNOUNCE = f"""
{_FENCE}
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""
# KEYS leader hash; ARGV token until-ms field …
DROP_FIELDS = f"""
{_FENCE}
{_MEND}
redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
return 1
"""
# KEYS leader seq; ARGV token ttl-ms former-token leaders-channel claim-ms. Returns 0 (another's), 1
# (renewed), 2 (acquired) or 3 (free), the seq, the clock in ms, and another's token, cut at 256
# bytes. A free key is taken until claim-ms by this clock, since a server that was frozen executes
# requests that were given up long ago. SET renews the key, because it fails where publishing would
# fail too: when the server is out of memory. A user that may not publish on the channel leads all
# the same. A key that lost its TTL, or that another program wrote, would block everybody until
# somebody deletes it: it lapses like any other unless its owner renews it.
LEAD = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local held = redis.call('GET', KEYS[1])
local seq = redis.pcall('GET', KEYS[2])
if type(seq) ~= 'string' then seq = false end
if held and held ~= ARGV[1] and held ~= ARGV[3] then
  if redis.pcall('PTTL', KEYS[1]) == -1 then redis.pcall('SET', KEYS[1], held, 'PX', ARGV[2]) end
  return {0, seq, now, string.sub(held, 1, 256)}
end
if not held and now > tonumber(ARGV[5]) then return {3, seq, now} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.pcall('PUBLISH', ARGV[4], ARGV[1])
if held == ARGV[1] then return {1, seq, now} end
return {2, seq, now}
"""
# KEYS leader status; ARGV token
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""
# KEYS leases; ARGV how many to show, how many to return at most, seconds …. Finds the clock in unix
# seconds, members and scores of lapsed leases, which are removed, and of those that lapse more than
# these seconds ahead, and the members of all others, or nil where they are too many. A lease that
# lapsed is nobody's, so the leader key is not asked.
_LAPSED = """
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local lapsed = redis.pcall(
  'ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
if lapsed.err then return lapsed end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""
_LIVE = """
local far = '(' .. string.format('%.6f', time[1] + ARGV[3])
far = redis.call('ZRANGEBYSCORE', KEYS[1], far, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local live, leased = false, redis.call('ZCARD', KEYS[1])
if leased <= tonumber(ARGV[2]) then
  live = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf')
end
"""
LEASES = f"""
{_LAPSED}
{_LIVE}
return {{now, lapsed, far, live}}
"""
# KEYS leases; ARGV as above, a digest, the key of the set, which is no KEY because a user needs the
# right to write for each of these, and of how many leases and entries a digest is made. Returns
# the clock alone where both keys hold what the digest says and no lease has lapsed. Else it returns
# what LEASES does, the digest, the number of leases and of entries of the set, and these entries,
# or nil where they are too many. Equal sets may have unequal digests, since their order may differ,
# but not the reverse. To DUMP a set costs the server less than to return it. The digest is empty
# where the server or the user may not DUMP, and where that would hold the server for too long.
DEMAND = f"""
local size = redis.pcall('SCARD', ARGV[5])
if type(size) ~= 'number' then return size end
{_LAPSED}
local digest = ''
if size + redis.call('ZCARD', KEYS[1]) <= tonumber(ARGV[6]) then
  local leases, entries = redis.pcall('DUMP', KEYS[1]) or '', redis.pcall('DUMP', ARGV[5]) or ''
  if type(leases) == 'string' and type(entries) == 'string' then
    digest = redis.sha1hex(#leases .. ' ' .. leases .. entries)
    if digest == ARGV[4] and #lapsed == 0 then return {{now}} end
  end
end
{_LIVE}
local all = size <= tonumber(ARGV[2]) and redis.call('SMEMBERS', ARGV[5])
return {{now, lapsed, far, live, digest, leased, size, all}}
"""
