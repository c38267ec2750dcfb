-- Ends all steps. The token names the rollout and its step, so pressing twice is one act.
local rollout = (obj.status or {}).rollout or {}
if rollout.revision == nil or rollout.id == nil then
  error("no revision is being rolled out: see status.rollout", 0)
end
local token = "rollout-" .. tostring(rollout.id) .. "-step-" .. tostring(rollout.step or 0)
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["llmfleet.dev/promote"] = rollout.revision .. "/full@" .. token
return obj
