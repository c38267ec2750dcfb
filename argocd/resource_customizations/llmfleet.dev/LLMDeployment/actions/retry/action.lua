-- Lifts the rejection of the revision that spec asks for, or makes up for its aborted tries.
-- The token says which rejection or try is meant: the same one is retried once.
local status = obj.status or {}
local rollout = status.rollout or {}
local revision, token = nil, nil
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "RolledBack" and condition.status == "True" then
    revision, token = status.specRevision, "rejected-" .. tostring(condition.lastTransitionTime)
  end
end
if revision == nil and rollout.aborted ~= nil and rollout.attempt ~= nil then
  revision = rollout.revision
  token = "rollout-" .. tostring(rollout.id) .. "-attempt-" .. tostring(rollout.attempt)
end
if revision == nil then
  error("spec's revision was neither rejected nor aborted: nothing to retry", 0)
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["llmfleet.dev/retry"] = revision .. "@" .. token
return obj
