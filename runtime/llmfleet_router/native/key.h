// The affinity key of a request: which bytes of its body it depends on, and their hash.
//
// The bytes come from anyone. Everything here is bounded by the length that is passed, reads nothing
// behind it, takes linear time, and neither recurses nor allocates. tests/unit/router/reference.py
// says the same in plain Python.
#ifndef LLMFLEET_KEY_H
#define LLMFLEET_KEY_H

#include <stddef.h>
#include <stdint.h>

enum {
  kSearchBytes = 4096,      // how far into the body the prompt's field is looked for
  kMaxPrefixBytes = 65536,  // the largest LLMFLEET_PREFIX_BYTES
  kWindowBytes = kSearchBytes + kMaxPrefixBytes,
  kKeyDigits = 16,
};

struct span {
  const uint8_t *data;
  size_t length;
};

// The part of a body that the key depends on: from the first "messages", "prompt" or "input" to the
// end of the first user message, at most `prefix` bytes. `body` may be cut after kSearchBytes +
// `prefix` bytes.
struct span key_prefix(struct span body, size_t prefix);

// 64 bits that depend on every byte; another seed is another function.
uint64_t key_hash(struct span text, uint64_t seed);

// The key, as hexadecimal digits without a NUL, of a session's name or of a body's prefix.
void key_digits(struct span text, int is_session, char digits[kKeyDigits]);

#endif
