-- Nothing moves until it is resumed; without a rollout under way, the next one waits.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["llmfleet.dev/pause"] = "true"
return obj
