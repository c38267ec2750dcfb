-- Ends the step that is seen under way, and no other: pressing twice, or late, ends one step.
local rollout = (obj.status or {}).rollout or {}
if rollout.revision == nil or rollout.id == nil then
  error("no revision is being rolled out: see status.rollout", 0)
end
local step = tostring(rollout.step or 0)
local token = "rollout-" .. tostring(rollout.id) .. "-step-" .. step
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["llmfleet.dev/promote"] = rollout.revision .. "/" .. step .. "@" .. token
return obj
