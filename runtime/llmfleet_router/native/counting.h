// What becomes of a request, step by step, and where it is booked (ledger.h).
#ifndef LLMFLEET_COUNTING_H
#define LLMFLEET_COUNTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "envoy.h"
#include "ledger.h"

// What routes say of their requests.
struct booking {
  uint64_t generation;
  enum class class;
};

// GENERATION CLASS, say `17 split`. False: it is anything else.
bool read_booking(struct text text, struct booking *booking);

// One request that was sent on; all zeros before.
struct sent {
  struct ledger *ledger;  // NULL: it is not counted
  struct key key;
  struct place place;
  uint64_t at_ms;
  enum outcome failure;  // of an answer that the router itself gives; kSent: none
  bool is_first_there, is_over;
  bool has_other;  // revision beside its own, whose pods are its last resort
};

// It goes to an engine now; `cluster` is Envoy's name of its revision's, or of that one's share of a
// split (resources.py).
void count_sent(struct sent *sent, struct ledger *ledger, const struct booking *booking,
                struct text cluster, uint64_t body_bytes);

// The router answers itself, in the engine's place; `details` are Envoy's response_code_details.
void count_own_answer(struct sent *sent, struct text details);

// The first byte of the body of a good answer.
void count_first(struct sent *sent);

// A pod of this revision answers, or should have. True: it is not the one that the request was for,
// whose pods could not be connected to.
bool count_elsewhere(struct sent *sent, struct text revision);

// A pod that has been ready since then (seconds since 1970) answers, or should have.
void count_pod(struct sent *sent, double ready_since);

// What is known at the end.
struct end {
  unsigned status;       // 0: none came
  bool is_client_gone;   // and not the engine
  uint64_t timeout_ms;   // of the first token
};
void count_end(struct sent *sent, struct end end);

#endif
