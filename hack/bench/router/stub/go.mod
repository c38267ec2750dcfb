module llmfleet.dev/bench/stub

go 1.26
