"""What the server does as one step, in Lua.

Everything that both reads and writes is a script, so that a process that dies at any
instant leaves nothing half done. Names and arguments are explained by each. ``DAY`` is
how much longer than a lease its key lives: what is left of the key beyond a day is left of
the lease, and renewing it takes a mere PEXPIRE, which Redis allows even when it is full.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

DAY = 86_400_000

OPEN = """
local function open(stream)
  local made = redis.pcall('XGROUP', 'CREATE', stream, 'unstuck', '0', 'MKSTREAM')
  return not made.err or string.find(made.err, 'BUSYGROUP')
end
"""

PUT = """
local function put(kind, key, a, b, c)
  if kind == 'now' then
    redis.call('XADD', key, '*', 'm', a)
  else
    redis.call('ZADD', key, a, b)
    redis.call('ZADD', kind, 'LT', a, c)
  end
end
"""


MOVE = """
-- Out of a reader's hands and to where it is served first. What was lost with its reader
-- is told how often that happened (d), what was given back that it was (r).
local function move(stream, id, lost)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    local times, back = 0, string.match(stream, '^(.*):[^:]*$') .. ':r'
    for at = 3, #entry[2], 2 do
      if entry[2][at] == 'd' then times = tonumber(entry[2][at + 1]) end
    end
    if lost then redis.call('XADD', back, '*', 'm', entry[2][2], 'd', times + 1)
    else redis.call('XADD', back, '*', 'm', entry[2][2], 'd', times, 'r', 1) end
  end
  redis.call('XACK', stream, 'unstuck', id)
  redis.call('XDEL', stream, id)
  return entry and 1 or 0
end

local function leave(root, node, lost)
  local moved = 0
  for _, stream in ipairs(redis.call('SMEMBERS', root .. 'streams:' .. node)) do
    while true do
      local pending = redis.pcall('XPENDING', stream, 'unstuck', '-', '+', 100, node)
      if pending.err or #pending == 0 then break end
      for _, one in ipairs(pending) do moved = moved + move(stream, one[1], lost) end
    end
    redis.pcall('XGROUP', 'DELCONSUMER', stream, 'unstuck', node)
  end
  redis.call('SREM', root .. 'nodes', node)
  redis.call('DEL', root .. 'streams:' .. node, root .. 'lease:' .. node)
  return moved
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


RESERVE = Script(
    OPEN
    + """
-- KEYS: streams, the most urgent first. ARGV: reader, how many at most, and a 1 for each
-- stream whose messages need no acknowledgement.
local want, found = tonumber(ARGV[2]), {}
for place, stream in ipairs(KEYS) do
  if want <= 0 then break end
  local read = function()
    return redis.pcall('XREADGROUP', 'GROUP', 'unstuck', ARGV[1], 'COUNT', want,
                       'STREAMS', stream, '>')
  end
  local reply = read()
  if reply and reply.err then
    if string.find(reply.err, 'NOGROUP') and open(stream) then reply = read() end
    if reply and reply.err then
      if #found == 0 then return reply end
      break
    end
  end
  if reply then
    local entries = reply[1][2]
    want = want - #entries
    if string.sub(ARGV[3], place, place) == '1' then
      for _, entry in ipairs(entries) do
        redis.call('XACK', stream, 'unstuck', entry[1])
        redis.call('XDEL', stream, entry[1])
      end
    end
    found[#found + 1] = {stream, entries}
  end
end
return found
"""
)
"""Reserve messages; where a group is missing, as after FLUSHALL, it is made."""

DELAY = Script(
    PUT
    + """
-- ARGV: the queues by their due time, the delayed messages of this one, milliseconds,
-- message, queue.
put(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
"""
)
"""Put a message where it waits for its time."""

SETTLE = Script(
    PUT
    + """
-- ARGV: stream, id, then five for each message to put, see put().
if #redis.call('XPENDING', ARGV[1], 'unstuck', ARGV[2], ARGV[2], 1) == 0 then return 0 end
for at = 3, #ARGV, 5 do
  put(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
redis.call('XACK', ARGV[1], 'unstuck', ARGV[2])
redis.call('XDEL', ARGV[1], ARGV[2])
return 1
"""
)
"""Put other messages in the place of a reserved one; nothing if it is not ours any more."""

GIVE_BACK = Script(
    MOVE
    + """
-- ARGV: stream, id.
if #redis.call('XPENDING', ARGV[1], 'unstuck', ARGV[2], ARGV[2], 1) == 0 then return 0 end
return move(ARGV[1], ARGV[2], false)
"""
)
"""Let others have a reserved message; that it was reserved once more does not count."""

TICK = Script(
    MOVE
    + f"""
local DAY = {DAY}
"""
    + """
-- ARGV: root of the names, our node, lease in milliseconds, whether we have been there
-- before, whether some lease should be over by now, then the nodes whose lease we know to
-- be over.
local root, me, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local nodes, tick = root .. 'nodes', root .. 'tick'

-- Between two ticks nobody could renew: when the server stood still, was away, or had its
-- clock set, that is no node's fault.
local left, gap = redis.call('PTTL', tick), DAY
if left < 0 then
  redis.pcall('SET', tick, '1', 'PX', DAY)
else
  gap = DAY - left
  redis.call('PEXPIRE', tick, DAY)
end
local stood_still = gap < 0 or gap > lease / 2

local function renew(node)
  if redis.call('PEXPIRE', root .. 'lease:' .. node, lease + DAY) == 0 then
    redis.call('SET', root .. 'lease:' .. node, '1', 'PX', lease + DAY)
  end
end

local lost = 0
if redis.call('SISMEMBER', nodes, me) == 0 then
  if ARGV[4] == '1' then lost = 1 end
  redis.call('SADD', nodes, me)
end
renew(me)

local over, reaped, soonest = {}, {}, -1
for at = 6, #ARGV do over[ARGV[at]] = true end

local function look_after_nodes()
  for _, node in ipairs(redis.call('SMEMBERS', nodes)) do
    local rest = redis.call('PTTL', root .. 'lease:' .. node)
    if node == me then
      -- Renewed just now.
    elseif not over[node] and (rest < 0 or stood_still) then
      renew(node)
    elseif over[node] or rest <= DAY then
      reaped[#reaped + 1] = {node, leave(root, node, true)}
    elseif soonest < 0 or rest - DAY < soonest then
      soonest = rest - DAY
    end
  end
end

local wait = -1
local function promote()
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local due = root .. 'due'
  for _, queue in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 20)) do
    local delayed = root .. 'delayed:' .. queue
    local ready = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 250)
    for _, member in ipairs(ready) do
      local step, message = string.match(member, '^([^|]*)|(.*)$')
      redis.call('XADD', root .. 'queue:' .. queue .. ':' .. step, '*', 'm', message)
      redis.call('ZREM', delayed, member)
    end
    local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    if head[2] then redis.call('ZADD', due, head[2], queue)
    else redis.call('ZREM', due, queue) end
  end
  local soon = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if soon[2] then wait = math.max(0, soon[2] - now) end
end

-- A server that is full takes none of this, and our lease is kept all the same. One node
-- of the fleet is enough to look; what we know to be over is never put off.
local problem = ''
local function try(work)
  local ok, error = pcall(work)
  if not ok then problem = type(error) == 'table' and error.err or tostring(error) end
end
if ARGV[5] == '1' or stood_still or gap >= lease / 20 or next(over) then
  try(look_after_nodes)
end
try(promote)
return {lost, wait, soonest, reaped, problem}
"""
)
"""Keep our lease, take over from the dead, and promote what is due.

Returns whether our own messages were taken over while we were away; the milliseconds until
the next delayed message is due (-1: there is none), and until some lease would be over
(-1: nobody looked); who was reaped, with how many; and what the server had against it.
"""

LEAVE = Script(
    MOVE
    + """
-- ARGV: root of the names, node.
return leave(ARGV[1], ARGV[2], false)
"""
)
"""Go in order: what we still have reserved is given back."""

ADOPT = Script(
    """
-- ARGV: root of the names, then the steps. A reader that no node's lease stands for: its
-- last read reached the server when its node had been reaped already; or it took what
-- need not be acknowledged, and has not come back for a minute.
local root = ARGV[1]
for _, queue in ipairs(redis.call('SMEMBERS', root .. 'queues')) do
  for at = 2, #ARGV do
    local stream = root .. 'queue:' .. queue .. ':' .. ARGV[at]
    local readers = redis.pcall('XINFO', 'CONSUMERS', stream, 'unstuck')
    if not readers.err then
      for _, reader in ipairs(readers) do
        local name, pending, idle = reader[2], reader[4], reader[6]
        if redis.call('SISMEMBER', root .. 'nodes', name) == 1 then
          -- It is looked after.
        elseif pending > 0 then
          redis.call('SADD', root .. 'streams:' .. name, stream)
          redis.call('SADD', root .. 'nodes', name)
        elseif idle > 60000 then
          redis.call('XGROUP', 'DELCONSUMER', stream, 'unstuck', name)
        end
      end
    end
  end
end
"""
)
"""Make sure that everything reserved is reserved by a node that can be reaped."""

BRIDGE = Script(
    """
-- KEYS: a list of kombu's own transport, the stream. ARGV: how many at most.
local moved = 0
while moved < tonumber(ARGV[1]) do
  local message = redis.call('LINDEX', KEYS[1], -1)
  if not message then break end
  redis.call('XADD', KEYS[2], '*', 'm', message)
  redis.call('RPOP', KEYS[1])
  moved = moved + 1
end
return moved
"""
)
"""Move what producers with kombu's own transport have sent; the oldest is at the end."""

SIZE = Script(
    """
-- KEYS: streams, then lists. ARGV: how many of the keys are streams, root of the names.
local waiting, readers = 0, 0
for place, key in ipairs(KEYS) do
  if place > tonumber(ARGV[1]) then
    local length = redis.pcall('LLEN', key)
    if type(length) == 'number' then waiting = waiting + length end
  else
    waiting = waiting + redis.call('XLEN', key)
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if not groups.err then
      for _, group in ipairs(groups) do
        waiting = waiting - group[6]
      end
    end
  end
end
for _, node in ipairs(redis.call('SMEMBERS', ARGV[2] .. 'nodes')) do
  readers = readers + redis.call('SISMEMBER', ARGV[2] .. 'streams:' .. node, KEYS[1])
end
return {math.max(0, waiting), readers}
"""
)
"""How many messages wait in a queue, and how many read it."""

TAKE_DELAYED = Script(
    """
-- KEYS: the delayed messages of a queue, a stream. ARGV: one of them, and what comes into
-- the stream instead, if that is not empty. Deletes first, so a full server does it too.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], '*', 'm', ARGV[2]) end
return 1
"""
)
"""Take a message that waits for its time away, or put another in its place at once."""

PURGE = Script(
    """
-- KEYS: a stream. ARGV: how many at most.
local after = '-'
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
  for _, group in ipairs(groups) do after = '(' .. group[8] end
end
local entries = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', ARGV[1])
for _, entry in ipairs(entries) do redis.call('XDEL', KEYS[1], entry[1]) end
return #entries
"""
)
"""Delete messages that nobody has reserved."""
