// Which pod a request goes to: rendezvous hashing (Thaler and Ravishankar, 1998) with bounded load
// (Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350). A key has its own order of the pods; it goes
// to the first of them that is not too busy. A pod that comes or goes moves only its own keys.
#ifndef LLMFLEET_BALANCE_H
#define LLMFLEET_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "key.h"

enum { kBoundPercent = 125 };  // of the mean of active requests: the most that a pod may have

struct pod {
  uint64_t hash;    // of its address
  uint64_t active;  // requests that it works on
  bool is_tried;    // by an attempt of this request before; taken only if all were
};

uint64_t pod_hash(struct span address);

// The place of the pod in `pods`, which are `count` > 0.
size_t choose_pod(const struct pod *pods, size_t count, uint64_t key);

#endif
