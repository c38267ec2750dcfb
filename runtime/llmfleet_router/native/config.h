// What the filter is told by the bootstrap: lines of a name, a space and a value (module.py).
#ifndef LLMFLEET_CONFIG_H
#define LLMFLEET_CONFIG_H

#include <stddef.h>

#include "envoy.h"
#include "ledger.h"

struct config {
  size_t prefix_bytes;      // of the affinity key; 0: no key
  size_t body_limit_bytes;  // refused at once when announced; Envoy itself counts what comes
  size_t first_token_timeout_ms;
  char *token;              // for the engine; NULL: none
  size_t token_length;
  struct ledger *ledger;    // NULL: nothing is counted
};

// NULL: there is anything else among the lines, or no memory.
struct config *config_read(struct text text);

void config_free(struct config *config);

#endif
