"""What runs inside Redis, one script at a time and undisturbed: values, sets and watermark change together.

All keys of a partition share a hash tag, so they lie on one node of a cluster, and a script may
reach all of them although it names one. Numbers go in and out as text: Lua would write a large
one as 1e+15. Redis does not take back what a failed script did; so a script first judges, and what
it then writes for a customer ends with the hash that says it was done.
"""

from __future__ import annotations

DELIVER = """
-- KEYS: the watermark. ARGV: base, next offset, then epoch, seq, customer, dimension, value, expires_at and
-- message for each change; an empty value is an exit, an empty expires_at none.
local base, width = ARGV[1], 7
local held = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if not held[1] or not held[2] then return {-1, '', ''} end
local epoch, seq, first, last = tonumber(held[1]), tonumber(held[2]), 0, 0
for i = 3, #ARGV, width do
  local e, s = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if e > epoch or (e == epoch and s > seq) then
    if s ~= seq + 1 then return {-1, held[1], held[2]} end
    if first == 0 then first = i end
    epoch, seq, last = e, s, i
  end
end
if first == 0 then return {0, '', ''} end
local applied = 0
for i = first, #ARGV, width do
  local e, s, customer, dimension = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local value, expires_at, key = ARGV[i + 4], ARGV[i + 5], base .. 'c:' .. customer
  local was = redis.call('HMGET', key, 'epoch', 'seq', dimension)
  local be, bs = tonumber(was[1] or '0'), tonumber(was[2] or '0')
  if e > be or (e == be and s > bs) then
    if was[3] then redis.call('SREM', base .. 'm:' .. dimension .. ':' .. was[3], customer) end
    if value == '' then
      redis.call('HDEL', key, dimension)
    else
      redis.call('SADD', base .. 'sets', dimension .. ':' .. value)
      redis.call('SADD', base .. 'm:' .. dimension .. ':' .. value, customer)
      redis.call('HSET', key, dimension, value)
    end
    if expires_at == '' then
      redis.call('HDEL', key, 'expires_at')
    else
      redis.call('HSET', key, 'expires_at', expires_at)
    end
    redis.call('HSET', key, 'epoch', ARGV[i], 'seq', ARGV[i + 1])
    if redis.call('HLEN', key) == 2 + redis.call('HEXISTS', key, 'expires_at') then redis.call('DEL', key) end
    redis.call('PUBLISH', 'shoal:changes:' .. dimension, ARGV[i + 6])
    applied = applied + 1
  end
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[last], 'seq', ARGV[last + 1], 'offset', ARGV[2])
return {applied, '', ''}
"""
"""Returns {changes applied, '', ''}, or {-1, epoch, seq held} if some are missing; empty ones: not known."""

LOAD = """
-- KEYS: the watermark, for its slot. ARGV: base, then customer, epoch, seq, expires_at, how many values, and
-- as many pairs of dimension and value, for each customer.
local base, i = ARGV[1], 2
while i <= #ARGV do
  local customer, count = ARGV[i], tonumber(ARGV[i + 4])
  local key = base .. 'c:' .. customer
  local was = redis.call('HGETALL', key)
  for j = 1, #was, 2 do
    if was[j] ~= 'epoch' and was[j] ~= 'seq' and was[j] ~= 'expires_at' then
      redis.call('SREM', base .. 'm:' .. was[j] .. ':' .. was[j + 1], customer)
    end
  end
  redis.call('DEL', key)
  for j = i + 5, i + 3 + 2 * count, 2 do
    redis.call('SADD', base .. 'sets', ARGV[j] .. ':' .. ARGV[j + 1])
    redis.call('SADD', base .. 'm:' .. ARGV[j] .. ':' .. ARGV[j + 1], customer)
    redis.call('HSET', key, ARGV[j], ARGV[j + 1])
  end
  if ARGV[i + 3] ~= '' then redis.call('HSET', key, 'expires_at', ARGV[i + 3]) end
  redis.call('HSET', key, 'epoch', ARGV[i + 1], 'seq', ARGV[i + 2])
  i = i + 5 + 2 * count
end
return redis.status_reply('OK')
"""
"""Makes each customer's hash and sets exactly what is given, whatever they were."""
