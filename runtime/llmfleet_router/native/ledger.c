// See ledger.h.
#define _GNU_SOURCE
#include "ledger.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Rows that a thread finds again. Several have the same place, or two that are both written to
// would put each other out, and each time a new row were made.
enum { kSets = 32, kWays = 8 };

static _Thread_local struct {
  struct ledger *ledger;
  struct place places[kSets][kWays];
} mine;

static uint64_t clock_now(clockid_t clock, uint64_t parts_per_second) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * parts_per_second +
         (uint64_t)now.tv_nsec / (1000000000U / parts_per_second);
}

static struct ledger *map_new(const char *path) {
  // Who has the old one mapped goes on reading it: this is another file, with the old one's name.
  // And of its own name until then: another Envoy that starts would cut it short under this one.
  char fresh[4096];
  int length = snprintf(fresh, sizeof fresh, "%s.XXXXXX", path);
  if (length < 0 || (size_t)length >= sizeof fresh) return NULL;
  int file = mkostemp(fresh, O_CLOEXEC);
  if (file < 0) return NULL;
  void *memory = MAP_FAILED;
  // Allocated, not only long: a write into a hole of a full disk would end the process.
  if (!posix_fallocate(file, 0, sizeof(struct ledger)))
    memory = mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return unlink(fresh), NULL;
  struct ledger *ledger = memory;
  memcpy(ledger->magic, "llmfleet", sizeof ledger->magic);
  ledger->version = kLedgerVersion;
  ledger->rows = kLedgerRows;
  ledger->epoch = clock_now(CLOCK_REALTIME, 1000000000U);
  if (!rename(fresh, path)) return ledger;
  munmap(memory, sizeof *ledger);
  unlink(fresh);
  return NULL;
}

struct ledger *ledger_make(const char *path) {
  struct ledger *ledger = map_new(path);
  if (!ledger) unlink(path);  // an old one would be taken for today's
  return ledger;
}

static bool is_alive(struct place place) {
  return place.row && atomic_load_explicit(&place.row->birth, memory_order_relaxed) == place.birth;
}

static struct place make(struct ledger *ledger, const struct key *key) {
  uint64_t before = atomic_fetch_add_explicit(&ledger->made, 1, memory_order_relaxed);
  struct place place = {&ledger->row[before % kLedgerRows], before + 1};
  atomic_store_explicit(&place.row->birth, 0, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);  // a reader that sees new content sees no old birth
  place.row->key = *key;
  for (unsigned i = 0; i < kLedgerCounts; i++)
    atomic_store_explicit(&place.row->counts[i], 0, memory_order_relaxed);
  atomic_store_explicit(&place.row->birth, place.birth, memory_order_release);
  return place;
}

// FNV-1a (Fowler, Noll, Vo) of the key's bytes.
static uint32_t hash(const struct key *key) {
  uint32_t value = 2166136261U;
  const unsigned char *bytes = (const unsigned char *)key;
  for (size_t i = 0; i < sizeof *key; i++) value = (value ^ bytes[i]) * 16777619U;
  return value;
}

struct place ledger_place(struct ledger *ledger, const struct key *key) {
  if (!ledger) return (struct place){0};
  if (mine.ledger != ledger) {
    memset(&mine, 0, sizeof mine);
    mine.ledger = ledger;
  }
  struct place *set = mine.places[hash(key) % kSets], *oldest = set;
  for (unsigned way = 0; way < kWays; way++) {
    if (is_alive(set[way]) && !memcmp(&set[way].row->key, key, sizeof *key)) return set[way];
    if (set[way].birth < oldest->birth) oldest = &set[way];
  }
  return *oldest = make(ledger, key);
}

void ledger_add(struct place place, enum outcome what, int32_t more) {
  if (!is_alive(place)) return;
  // Nobody else writes it, so this need not be one step. (Another thread may be making the row anew
  // this very moment, after 32,000 others; then one count of a cohort is wrong.)
  _Atomic uint32_t *count = &place.row->counts[what];
  uint32_t value = atomic_load_explicit(count, memory_order_relaxed) + (uint32_t)more;
  atomic_store_explicit(count, value, memory_order_relaxed);
  atomic_store_explicit(&place.row->changed, clock_now(CLOCK_MONOTONIC, 1000),
                        memory_order_release);
}

uint8_t size_of(uint64_t bytes) {
  uint8_t size = 0;
  for (uint64_t kib = bytes >> 10; kib; kib >>= 1) size++;
  return size;
}

unsigned bucket_of(uint64_t milliseconds) {
  static const uint64_t bounds[] = TIME_BOUNDS_MS;
  unsigned bucket = 0;
  while (bucket < sizeof bounds / sizeof *bounds && milliseconds > bounds[bucket]) bucket++;
  return bucket;
}
