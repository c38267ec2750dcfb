-- The operator sums its conditions up in status.phase; here it only gets Argo CD's words.
-- Paused waits for a person, so it is Suspended: neither an alert nor something on its way.
local words = {
  Healthy = "Healthy",
  Progressing = "Progressing",
  Paused = "Suspended",
  Degraded = "Degraded",
}

local status = obj.status
if status == nil or status.phase == nil then
  return { status = "Progressing", message = "waiting for the llmfleet operator to take it up" }
end
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waiting for the llmfleet operator to see the changed spec" }
end
if words[status.phase] == nil then
  return { status = "Unknown", message = "phase " .. tostring(status.phase) .. " is of a newer llmfleet" }
end
return { status = words[status.phase], message = status.message or "" }
