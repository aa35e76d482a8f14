"""What Redis does as one step, in Lua, and how things are called there.

Below ``unstuck:lock:`` there are, each with an expiry of its own but where it is said:

- ``fence``, without an expiry: the fence that was given out last;
- ``held:NAME``, a hash: ``token``, ``fence``, ``since`` (in µs) and ``owner`` (JSON);
- ``line:NAME``, a sorted set: the tokens of those who wait, by when they came (in µs);
- ``waiter:TOKEN``, a hash: the ``name`` it waits for, its ``owner`` and when it was ``born``;
- ``wake:TOKEN``, a list: something in it says "ask again";
- ``evicted:FENCE``: who took the lock with this fence from its holder, and why;
- ``notes:NAME``, a hash without an expiry: what its holders have written down.

A lock that becomes free while somebody waits is handed to the first of them, who has
``GRACE`` to come for it: so nobody who comes later is before him, and one who has died
costs the others no more than that.

A server that is full refuses a script that sets something, unless it has deleted something
before: so each that sets begins with a deletion, and locks are kept on a full server too.

The first argument of each script is the root of the names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

HOLD = """
local root = ARGV[1]

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function whole(number) return string.format('%.0f', number) end

-- A fence is the time, unless that is not later than the last one: clocks may be set.
local function hold(name, token, owner, lease)
  local now = micros()
  local since = whole(now)
  local fence = since
  local last = tonumber(redis.call('SET', root .. 'fence', fence, 'GET') or 0)
  if last >= now then
    fence = whole(last + 1)
    redis.call('SET', root .. 'fence', fence)
  end
  local held = root .. 'held:' .. name
  redis.call('HSET', held, 'token', token, 'fence', fence, 'since', since, 'owner', owner)
  redis.call('PEXPIRE', held, lease)
  return fence
end
"""

HAND_ON = """
local GRACE, LATELY, WAITS, LINE = 1000, 1500, 3000, 60000

local function wake(token)
  redis.call('LPUSH', root .. 'wake:' .. token, 1)
  redis.call('PEXPIRE', root .. 'wake:' .. token, WAITS)
end

-- Those whose registration is over have died, or wait for something else.
local function pass_on(name)
  local line = root .. 'line:' .. name
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  while first do
    redis.call('ZREM', line, first)
    local waiter = redis.call('HMGET', root .. 'waiter:' .. first, 'name', 'owner')
    if waiter[1] == name then
      redis.call('DEL', root .. 'waiter:' .. first)
      hold(name, first, waiter[2], GRACE)
      wake(first)
      return first
    end
    first = redis.call('ZRANGE', line, 0, 0)[1]
  end
end

"""

ROW = """
local function row(name)
  local key = root .. 'held:' .. name
  local held = redis.call('HMGET', key, 'owner', 'since', 'fence')
  if not held[1] then return nil end
  return {name, held[1], held[2], held[3], redis.call('PTTL', key)}
end
"""


@dataclass(frozen=True)
class Script:
    """A script and the name that the server knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())


TAKE = Script(
    HOLD
    + """
-- ARGV: name, token, owner, lease in ms, whether it waits (1 or 0), when it was born.
local name, token, owner = ARGV[2], ARGV[3], ARGV[4]
local lease, waits, born = ARGV[5], ARGV[6] == '1', ARGV[7]
local line, waiter = root .. 'line:' .. name, root .. 'waiter:' .. token

-- As nearly always. What else there is to say costs more than the whole of this.
if redis.call('EXISTS', root .. 'held:' .. name, line) == 0 then
  redis.call('DEL', waiter)
  return hold(name, token, owner, lease)
end
"""
    + HAND_ON
    + ROW
    + """
local function taken(fence)
  redis.call('PEXPIRE', root .. 'held:' .. name, lease)
  redis.call('DEL', waiter, root .. 'wake:' .. token)
  return fence
end

local function stand_in_line()
  redis.call('DEL', root .. 'wake:' .. token)
  redis.call('HSET', waiter, 'name', name, 'owner', owner, 'born', born)
  redis.call('PEXPIRE', waiter, WAITS)
  redis.call('ZADD', line, 'NX', micros(), token)
  redis.call('PEXPIRE', line, LINE)
end

-- Whoever waits asks again and again; who does not has died, or does something else.
local function asked_lately(who)
  return redis.call('PTTL', root .. 'waiter:' .. who) > WAITS - LATELY
end

-- Whoever waits does so for one lock, so there is one way to go on from each.
local function cycle(at)
  local found, seen = {{name, owner}}, {}
  local youngest, latest = token, tonumber(born)
  while at ~= token do
    local waits_for = redis.call('HMGET', root .. 'waiter:' .. at, 'name', 'owner', 'born')
    if not waits_for[1] or seen[at] or not asked_lately(at) then return {} end
    seen[at] = true
    found[#found + 1] = {waits_for[1], waits_for[2]}
    local its = tonumber(waits_for[3])
    if its > latest or its == latest and at > youngest then
      youngest, latest = at, its
    end
    at = redis.call('HGET', root .. 'held:' .. waits_for[1], 'token')
    if not at then return {} end
  end
  if youngest ~= token then wake(youngest) end
  return found
end

local held = redis.call('HMGET', root .. 'held:' .. name, 'token', 'fence')
if held[1] == token then return taken(held[2]) end
if waits then stand_in_line() end
if not held[1] then
  held[1] = pass_on(name)
  if not held[1] then return taken(hold(name, token, owner, lease)) end
  if held[1] == token then
    return taken(redis.call('HGET', root .. 'held:' .. name, 'fence'))
  end
end
return {row(name), waits and cycle(held[1]) or {}}
"""
)
"""Take a lock. Returns the fence; or who holds it, and who of a cycle waits for what."""

GIVE_UP = Script(
    HOLD
    + HAND_ON
    + """
-- ARGV: name, token.
local name, token = ARGV[2], ARGV[3]
local held = root .. 'held:' .. name
redis.call('ZREM', root .. 'line:' .. name, token)
redis.call('DEL', root .. 'waiter:' .. token, root .. 'wake:' .. token)
if redis.call('HGET', held, 'token') == token then
  redis.call('DEL', held)
  pass_on(name)
end
"""
)
"""Wait no longer; what was handed over meanwhile goes to the next."""

RELEASE = Script(
    """
-- ARGV: root, name, token.
local name = ARGV[2]
local held = ARGV[1] .. 'held:' .. name
if redis.call('HGET', held, 'token') ~= ARGV[3] then return 0 end
redis.call('DEL', held)
if redis.call('EXISTS', ARGV[1] .. 'line:' .. name) == 0 then return 1 end
"""
    + HOLD
    + HAND_ON
    + """
pass_on(name)
return 1
"""
)
"""Let go. Returns 0 if it was not held."""

RENEW = Script(
    """
-- ARGV: root, lease in ms, then name and token of each.
local gone = {}
for at = 3, #ARGV, 2 do
  local held = ARGV[1] .. 'held:' .. ARGV[at]
  if redis.call('HGET', held, 'token') == ARGV[at + 1] then
    redis.call('PEXPIRE', held, ARGV[2])
  else
    gone[#gone + 1] = (at - 3) / 2
  end
end
return gone
"""
)
"""Let leases begin anew. Returns the places of those that are not held, from 0."""

NOTE = Script(
    """
-- ARGV: root, name, token, then each key with its text.
if redis.call('HGET', ARGV[1] .. 'held:' .. ARGV[2], 'token') ~= ARGV[3] then return 0 end
local notes = ARGV[1] .. 'notes:' .. ARGV[2]
for at = 4, #ARGV, 2 do
  redis.call('HDEL', notes, ARGV[at])
  if ARGV[at + 1] ~= '' then redis.call('HSET', notes, ARGV[at], ARGV[at + 1]) end
end
return 1
"""
)
"""Write something down under a lock. Returns whether it is held."""

# A script, as Redis answers the bare command in one of two shapes.
NOTES = Script("return redis.call('HGETALL', ARGV[1] .. 'notes:' .. ARGV[2])")
"""What was written down under a lock: each key, and its text after it."""

EVICT = Script(
    HOLD
    + HAND_ON
    + ROW
    + """
-- ARGV: name, a note for its holder, the holder's fence (or nothing: whoever it is).
local NOTED = 86400000
local was = row(ARGV[2])
if was and ARGV[4] ~= '' and was[4] ~= ARGV[4] then return nil end
if was then
  redis.call('DEL', root .. 'held:' .. ARGV[2])
  if ARGV[3] ~= '' then
    redis.call('SET', root .. 'evicted:' .. was[4], ARGV[3], 'PX', NOTED)
  end
  pass_on(ARGV[2])
end
return was
"""
)
"""Take a lock from its holder. Returns who that was."""

ROWS = Script(
    "local root = ARGV[1]\n"
    + ROW
    + """
-- ARGV: names.
local rows = {}
for at = 2, #ARGV do
  local found = row(ARGV[at])
  if found then
    local waiting = {}
    for _, token in ipairs(redis.call('ZRANGE', root .. 'line:' .. ARGV[at], 0, -1)) do
      local waiter = redis.call('HMGET', root .. 'waiter:' .. token, 'name', 'owner')
      if waiter[1] == ARGV[at] then waiting[#waiting + 1] = waiter[2] end
    end
    found[#found + 1] = waiting
    rows[#rows + 1] = found
  end
end
return rows
"""
)
"""Who holds what, and who waits for it."""
