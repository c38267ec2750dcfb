-- Ends what the pause action began. A pause step is ended by promote.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["llmfleet.dev/pause"] = nil
end
return obj
