-- Back to the served revision; the one that was rolled out is rejected.
local rollout = (obj.status or {}).rollout or {}
if rollout.revision == nil or rollout.id == nil then
  error("no revision is being rolled out: see status.rollout", 0)
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["llmfleet.dev/abort"] = rollout.revision .. "@rollout-" .. tostring(rollout.id)
return obj
