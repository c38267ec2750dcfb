-- An action is offered only while the operator would accept it and it would change something.
local status = obj.status or {}
local rollout = status.rollout or {}
local plan = rollout.plan or {}
local pause = (obj.metadata.annotations or {})["llmfleet.dev/pause"]

local rejected = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "RolledBack" and condition.status == "True" then
    rejected = true
  end
end

-- A first revision has nothing to go back to, and one that goes back already is on its way.
local rolling = rollout.revision ~= nil
  and rollout.aborted == nil
  and status.servedRevision ~= nil
  and status.servedRevision ~= rollout.revision

-- A blue-green rollout has two steps that are not spelled out: the whole new set, its preview.
local steps = { Canary = #(plan.steps or {}), BlueGreen = 2 }
-- While the annotation pauses it, a promotion would be used up unseen.
local at_step = rolling
  and rollout.cause == nil
  and (rollout.step or 0) < (steps[plan.strategy] or 0)
  and pause ~= "true"
  and pause ~= rollout.revision
  and status.observedGeneration == obj.metadata.generation

-- Tried and given up without its fault: the next try need not be waited for.
local gave_up = rollout.aborted ~= nil
  and rollout.attempt ~= nil
  and rollout.revision == status.specRevision

return {
  ["promote"] = { disabled = not at_step },
  ["promote-full"] = { disabled = not at_step },
  -- An undo that ended would go back to what it has rejected.
  ["abort"] = { disabled = not rolling or rollout.cause == "Undo" },
  ["retry"] = { disabled = not (rejected or gave_up) },
  ["pause"] = { disabled = pause == "true" },
  ["resume"] = { disabled = pause == nil },
}
