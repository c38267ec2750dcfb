// The ledger: what this router sent to which revision, and what became of it.
//
// A table in a file that the agent maps as well, so it outlives the agent and nothing is asked of
// Envoy. Rows are cohorts: what was sent to one revision in one slot of five seconds under one
// trafficGeneration, by class and size of the body. An outcome is booked in the row its request was
// sent in, however late it comes.
//
// Each row belongs to the worker thread that made it, and only that thread writes it: a request
// stays on its thread. Two threads, or one that forgot, make two rows with the same key; readers
// add them up. Rows are made in turn, and the oldest is overwritten.
#ifndef LLMFLEET_LEDGER_H
#define LLMFLEET_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
  kLedgerVersion = 1,
  kLedgerRows = 32000,
  kLedgerCounts = 20,
  kSlotSeconds = 5,
  kRevisionBytes = 16,
};

// What a row counts. The agent knows them by their place (runtime/llmfleet_router/ledger.py).
enum outcome {
  kSent,
  kFirst,          // the first byte of a good answer's body came
  kAnswered,       // a good answer ended, or its client left in the middle of it
  kConnect,        // no connection, or no engine
  kReset,          // lost before a first byte of the body
  kError,          // 5xx, but 503
  kCut,            // the answer broke off after it
  kNoFirst,        // the client left after the first token's timeout, and none had come
  kRefused,        // 503, 429
  kBadRequest,     // 400
  kNotFound,       // 404
  kTooLarge,       // 413
  kUnprocessable,  // 422
  kOtherClient,    // any other 4xx
  kUnauthorized,   // 401, 403: the engine's answer to our token
  kAbandoned,      // the client left before the first token, and before its timeout
  kOutcomes,
};

enum class {
  kSplit,    // drawn by the weights
  kYoung,    // of them, what met a pod that has been ready for less than a minute
  kHeader,   // by a header route
  kPreview,  // at the preview port
  kTimes,    // no cohort: a histogram of the time to the first token, by minute
  kClasses,
};

// Up to the last whole millisecond, the last bucket has no bound.
#define TIME_BOUNDS_MS                                                                          \
  {5,    10,   25,   50,   75,   100,  150,  250,   400,   600,                                 \
   1000, 1500, 2500, 4000, 6000, 10000, 20000, 40000, 80000}

struct key {
  uint64_t generation;
  uint32_t slot;  // seconds since 1970, divided by kSlotSeconds
  uint8_t class;
  uint8_t size;  // of the body: bits of the number of its KiB, so each is twice the one before
  uint16_t unused;
  char revision[kRevisionBytes];  // filled up with zeros
};

struct row {
  _Atomic uint64_t birth;    // of which making it is, counted from 1; 0 while it is made
  _Atomic uint64_t changed;  // CLOCK_MONOTONIC, in milliseconds
  struct key key;
  _Atomic uint32_t counts[kLedgerCounts];
};

struct ledger {
  char magic[8];
  uint32_t version;
  uint32_t rows;
  uint64_t epoch;  // when it was made, in nanoseconds since 1970: another one has forgotten all
  _Atomic uint64_t made;  // rows, since then
  char unused[32];
  struct row row[kLedgerRows];
};

_Static_assert(sizeof(struct row) == 128, "the agent reads rows of this size");
_Static_assert(sizeof(struct ledger) <= 4 << 20, "at most 4 MiB");

// Where a request's outcome is booked.
struct place {
  struct row *row;  // NULL: nowhere
  uint64_t birth;
};

// Makes the file anew, in the place of one that is there. NULL: it cannot be made.
struct ledger *ledger_make(const char *path);

// The row of a key; made if this thread has none.
struct place ledger_place(struct ledger *ledger, const struct key *key);

// Adds `more` (which may be below zero) to a count, unless the row has become another one's.
void ledger_add(struct place place, enum outcome what, int32_t more);

// Which size a body of so many bytes has.
uint8_t size_of(uint64_t bytes);

// Which bucket a time lies in.
unsigned bucket_of(uint64_t milliseconds);

#endif
