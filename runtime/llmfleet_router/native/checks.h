// What a request's header lines must be. Values come from anyone; see key.h.
#ifndef LLMFLEET_CHECKS_H
#define LLMFLEET_CHECKS_H

#include <stdbool.h>
#include <string.h>

#include "key.h"

// Compares a name or value with a literal, exactly. Inline: of a known length it is a comparison
// or two, and every header is compared with several names.
#define IS(text, literal) text_is(text, literal, sizeof literal - 1)
static inline bool text_is(struct span text, const char *literal, size_t length) {
  return text.length == length && !memcmp(text.data, literal, length);
}

// application/json, optionally in UTF-8; letters in any case.
bool is_json_type(struct span value);

// No encoding: empty, or identity in any case.
bool is_no_encoding(struct span value);

// A decimal number above `limit`.
bool is_above(struct span value, size_t limit);

// Names that only the router may say: x-llmfleet-*, x-envoy-*, and what overrides the method. Not
// the two that Envoy itself sets on nearly every request; the routes remove those.
bool is_private(struct span name);

#endif
