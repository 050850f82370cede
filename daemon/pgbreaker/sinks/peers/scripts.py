"""What the engine runs for us, each at one go: nobody sees the half of it.

Leases end by the engine's clock alone, which is a wall clock and can be set. Whoever
comes notes the time, so that the next one sees how much has gone: when that is less than
nothing the clock was set back, and when it is more than a lease nobody came at all, be it
that the clock was set, the engine frozen, or the network gone. That time counts for
nobody: every lease is moved along with it. So the daemons that were there are still
there, and one that is dead is so at most one lease later.

A script that was given up by us can still run, after a frozen engine has thawed. It
carries a number therefore, and is void once a later one of the same daemon has run.

Redis looks whether there is memory at the first write of a script; once one has gone
through, so do the others. Nothing but that stops a script halfway.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

DAY: Final = 86_400_000
"""Milliseconds for which stays what a daemon has said, without a sign of it."""

LONG: Final = 90 * DAY
"""Milliseconds for which stays what the fleet has in common, without any daemon."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that the engine has for it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)

    def command(self, line: int) -> str:
        """Name the command that it runs in a line of it, or begins to run before."""
        before = "\n".join(self.text.splitlines()[:line])
        found = re.findall(r"redis\.call\('(\w+)'", before)
        return found[-1].lower() if found else "a script"


# KEYS: fleet, leases, and whatever else; ARGV: run, attempt, name, who, token, length.
#
# fleet   born, run, last, tokens, clock
# leases  name -> token, end, who, beat, said, digest of its targets
_TIME: Final = """
local fleet, leases = KEYS[1], KEYS[2]
local run, attempt = ARGV[1], tonumber(ARGV[2])
local name, who, token, length = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local function lease_of(text)
  local token, ends, who, beat, said, targets =
    string.match(text or '', '^(%d+) (%d+) (%S+) (%d+) (%d+) (.*)$')
  return token and {
    token = tonumber(token), ends = tonumber(ends), who = who,
    beat = tonumber(beat), said = tonumber(said), targets = targets,
  }
end

local function keep(name, lease)
  redis.call('HSET', leases, name, string.format('%.0f %.0f %s %.0f %.0f %s',
    lease.token, lease.ends, lease.who, lease.beat, lease.said, lease.targets))
end

local function last_for(key, time)
  local left = redis.call('PTTL', key)
  if left > -2 and left < time / 2 then redis.call('PEXPIRE', key, time) end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = now - (redis.call('HGET', fleet, 'clock') or now)
redis.call('HSET', fleet, 'clock', string.format('%.0f', now))
if math.abs(gone) > 21600000 then redis.call('HDEL', fleet, 'run') end
if gone < 0 or gone > length then
  local all = redis.call('HGETALL', leases)
  for i = 1, #all, 2 do
    local lease = lease_of(all[i + 1])
    if lease then
      lease.ends = math.max(lease.ends + gone, 0)
      keep(all[i], lease)
    end
  end
end
"""

# Not after a restart that no beat has seen yet: the numbers may be old ones.
_FENCE: Final = """
local lease = lease_of(redis.call('HGET', leases, name))
if not lease or lease.ends <= now or lease.token ~= token or lease.who ~= who
  or attempt <= lease.said or redis.call('HGET', fleet, 'run') ~= run then
  return {'fenced'}
end
lease.said = attempt
keep(name, lease)
"""

# KEYS: ..., seen, said, entries, words, views, targets; ARGV: ..., born, targets, day,
# long. A fleet is born when there was none, and again when some of it may be lost: the
# engine is another process than it was, or so much time has gone (above) that keys may
# have expired. Its numbers begin anew where none has been before.
BEAT: Final = Script(
    _TIME
    + """
local seen, said, entries, words, views, places =
  KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local born, targets, day, long = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])

local held = lease_of(redis.call('HGET', leases, name))
local is_live = held and held.ends > now
local is_known = held and (held.who == who or held.token == token)
if is_live and not is_known then return {'held', held.ends - now} end
if held and held.who == who and attempt <= held.beat then return {'late'} end

local old = redis.call('HGET', fleet, 'born')
if not old or redis.call('HGET', fleet, 'run') ~= run then
  local last = tonumber(redis.call('HGET', fleet, 'last') or 0)
  local top = redis.call('XREVRANGE', said, '+', '-', 'COUNT', 1)[1]
  if top then last = math.max(last, tonumber(string.match(top[1], '^%d+'))) end
  local tokens = tonumber(redis.call('HGET', fleet, 'tokens') or 0)
  if old then tokens = tokens + 1000 end
  redis.call('HSET', fleet, 'born', born, 'run', run,
    'tokens', string.format('%.0f', tokens),
    'last', string.format('%.0f', math.max(last + 1000000, now)))
  for _, other in ipairs(redis.call('ZRANGE', seen, 0, -1)) do
    redis.call('ZADD', seen, string.format('%.0f', now), other)
  end
else
  born = old
end

local lease = {
  ends = now + length, who = who, beat = attempt, targets = targets,
  said = held and held.who == who and held.said or 0,
}
local is_due = attempt % 100 == 1
if is_live and held.token == token then
  lease.token = token
else
  is_due = true
  local tokens = tonumber(redis.call('HGET', fleet, 'tokens'))
  lease.token = math.max(tokens, token or 0) + 1
  redis.call('HSET', fleet, 'tokens', string.format('%.0f', lease.token))
end
keep(name, lease)
redis.call('ZADD', seen, string.format('%.0f', now), name)

if is_due then
  for _, key in ipairs({views, places, said}) do last_for(key, day) end
  for _, key in ipairs({fleet, leases, seen, entries, words}) do last_for(key, long) end
  local before = string.format('(%.0f', now - 31 * day)
  local away = redis.call('ZRANGEBYSCORE', seen, '-inf', before, 'LIMIT', 0, 100)
  for _, other in ipairs(away) do
    redis.call('HDEL', entries, other)
    redis.call('ZREM', seen, other)
  end
end

local answer = {'ok', lease.token, now, redis.call('HGET', fleet, 'last'), born}
local all = redis.call('HGETALL', leases)
for i = 1, #all, 2 do
  local peer = lease_of(all[i + 1])
  if peer and peer.ends > now then
    for _, value in ipairs({all[i], peer.token, peer.ends - now, peer.targets}) do
      answer[#answer + 1] = value
    end
  else
    redis.call('HDEL', leases, all[i])
  end
end
return answer
"""
)

# KEYS: ..., said, entries, words, views; ARGV: ..., kept, day, channel, and of each
# message its kind, key and body.
SAY: Final = Script(
    _TIME
    + _FENCE
    + """
local said, entries, words, views = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local kept, day, channel = ARGV[7], tonumber(ARGV[8]), ARGV[9]

local function version_of(body)
  local is_json, word = pcall(cjson.decode, body)
  local version = is_json and type(word) == 'table' and word.version
  if type(version) ~= 'table' then return 0, '' end
  return tonumber(version[1]) or 0, tostring(version[2])
end

-- By their bytes: Lua's own comparison goes by the language of the machine.
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function is_later(body, standing)
  local at, by = version_of(body)
  local was_at, was_by = version_of(standing)
  if at ~= was_at then return at > was_at end
  return is_less(was_by, by)
end

local function is_new(kind, key, body)
  if kind == 'view' then
    redis.call('HSET', views, key, body)
  elseif kind == 'gone' then
    redis.call('HDEL', views, key)
  elseif kind == 'word' then
    local standing = redis.call('HGET', words, key)
    if standing and not is_later(body, standing) then return false end
    redis.call('HSET', words, key, body)
  elseif kind == 'entry' then
    local standing = tonumber(redis.call('HGET', entries, name) or -1)
    if tonumber(key) <= standing then return false end
    redis.call('HSET', entries, name, key)
  end
  return true
end

local last = redis.call('HGET', fleet, 'last')
local first = last
for i = 10, #ARGV, 3 do
  local kind, key, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if is_new(kind, key, body) then
    last = redis.call('HINCRBY', fleet, 'last', 1)
    redis.call('XADD', said, 'MAXLEN', '~', kept, string.format('%.0f-0', last),
      'daemon', name, 'token', token, 'kind', kind, 'key', key, 'body', body)
  end
end
last_for(views, day)
last_for(said, day)
if last ~= first then
  redis.call('PUBLISH', channel, string.format('%.0f', last))
end
return {'ok', last}
"""
)

# KEYS: ..., targets; ARGV: ..., targets, day.
ANNOUNCE: Final = Script(
    _TIME
    + _FENCE
    + """
redis.call('SET', KEYS[3], ARGV[7], 'PX', ARGV[8])
return {'ok'}
"""
)

LEAVE: Final = Script(
    _TIME
    + """
local lease = lease_of(redis.call('HGET', leases, name))
if lease and lease.token == token and lease.who == who then
  redis.call('HDEL', leases, name)
end
return {'ok'}
"""
)
