-- wrk's script: arg[1] bytes a prompt. Sixteen conversations in turn; the figures as one JSON line.
local requests, turn = {}, 0

function init(args)
  local size = tonumber(args[1])
  for i = 1, 16 do
    local text = string.rep(string.format("conversation %02d says a few words. ", i), 1 + size / 34)
    local body = '{"model":"m","messages":[{"role":"user","content":"' .. string.sub(text, 1, size)
      .. '"}]' .. (args[2] == "stream" and ',"stream":true' or "") .. "}"
    requests[i] = wrk.format(
      "POST", "/v1/chat/completions", { ["content-type"] = "application/json" }, body)
  end
end

function request()
  turn = turn % 16 + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
