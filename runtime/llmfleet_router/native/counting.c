// See counting.h.
#define _GNU_SOURCE
#include "counting.h"

#include <string.h>
#include <time.h>

enum { kYoungSeconds = 60, kTimesSlots = 60 / kSlotSeconds };

static bool begins(struct text text, const char *with) {
  size_t length = strlen(with);
  return text.length >= length && !memcmp(text.data, with, length);
}

static bool contains(struct text text, const char *part) {
  return text.length && memmem(text.data, text.length, part, strlen(part));
}

static bool read_number(struct text *text, uint64_t *value) {
  size_t used = 0;
  for (*value = 0; used < text->length && text->data[used] != ' '; used++) {
    unsigned digit = (unsigned)(text->data[used] - '0');
    if (digit > 9 || *value > (INT64_MAX - digit) / 10) return false;
    *value = *value * 10 + digit;
  }
  if (!used || used == text->length) return false;
  *text = (struct text){text->data + used + 1, text->length - used - 1};
  return true;
}

bool read_booking(struct text text, struct booking *booking) {
  static const char *const names[] = {
      [kSplit] = "split", [kHeader] = "header", [kPreview] = "preview"};
  *booking = (struct booking){0};
  if (!read_number(&text, &booking->generation)) return false;
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    if (!names[i] || text.length != strlen(names[i]) || !begins(text, names[i])) continue;
    booking->class = (enum class)i;
    return true;
  }
  return false;
}

static uint64_t now_ms(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// `rev-HASH`, or `arm-HASH_OTHER`.
static bool read_cluster(struct text cluster, struct text *revision, bool *has_other) {
  static const size_t named = 4;
  *has_other = begins(cluster, "arm-");
  if (!*has_other && !begins(cluster, "rev-")) return false;
  *revision = (struct text){cluster.data + named, cluster.length - named};
  if (*has_other) {
    const char *end = memchr(revision->data, '_', revision->length);
    if (!end) return false;
    revision->length = (size_t)(end - revision->data);
  }
  return revision->length <= kRevisionBytes;
}

void count_sent(struct sent *sent, struct ledger *ledger, const struct booking *booking,
                struct text cluster, uint64_t body_bytes) {
  struct text revision;
  if (!ledger || !booking || !read_cluster(cluster, &revision, &sent->has_other)) return;
  sent->ledger = ledger;
  sent->at_ms = now_ms(CLOCK_MONOTONIC);
  sent->key = (struct key){
      .generation = booking->generation,
      .slot = (uint32_t)(now_ms(CLOCK_REALTIME) / 1000 / kSlotSeconds),
      .class = (uint8_t)booking->class,
      .size = size_of(body_bytes),
  };
  memcpy(sent->key.revision, revision.data, revision.length);
  sent->place = ledger_place(ledger, &sent->key);
  ledger_add(sent->place, kSent, 1);
}

void count_own_answer(struct sent *sent, struct text details) {
  if (begins(details, "upstream_reset_after"))
    sent->failure = sent->is_first_there ? kCut : kReset;
  else if (begins(details, "upstream_reset"))
    // Of the reasons in braces these say that the request was never sent.
    sent->failure = contains(details, "connection_failure") ||
                            contains(details, "connection_timeout") || contains(details, "overflow")
                        ? kConnect
                        : kReset;
  else if (contains(details, "timeout"))
    sent->failure = sent->is_first_there ? kCut : kNoFirst;
  else
    sent->failure = kConnect;  // no_healthy_upstream and its kin
}

void count_first(struct sent *sent) {
  if (!sent->ledger || sent->is_first_there) return;
  sent->is_first_there = true;
  ledger_add(sent->place, kFirst, 1);
  struct key times = sent->key;
  times.class = kTimes;
  times.size = 0;
  times.generation = 0;
  times.slot -= times.slot % kTimesSlots;
  unsigned bucket = bucket_of(now_ms(CLOCK_MONOTONIC) - sent->at_ms);
  ledger_add(ledger_place(sent->ledger, &times), (enum outcome)bucket, 1);
}

bool count_elsewhere(struct sent *sent, struct text revision) {
  const char *own = sent->key.revision;
  size_t length = strnlen(own, kRevisionBytes);
  if (revision.length == length && !memcmp(revision.data, own, length)) return false;
  sent->failure = kConnect;
  return true;
}

void count_pod(struct sent *sent, double ready_since) {
  if (!sent->ledger || sent->key.class != kSplit) return;
  int64_t sent_at = (int64_t)sent->key.slot * kSlotSeconds;
  if (ready_since + (double)kYoungSeconds <= (double)sent_at) return;
  ledger_add(sent->place, kSent, -1);
  if (sent->is_first_there) ledger_add(sent->place, kFirst, -1);
  sent->key.class = kYoung;
  sent->place = ledger_place(sent->ledger, &sent->key);
  ledger_add(sent->place, kSent, 1);
  if (sent->is_first_there) ledger_add(sent->place, kFirst, 1);
}

static enum outcome of_status(unsigned status) {
  switch (status) {
    case 400: return kBadRequest;
    case 401:
    case 403: return kUnauthorized;
    case 404: return kNotFound;
    case 413: return kTooLarge;
    case 422: return kUnprocessable;
    case 429:
    case 503: return kRefused;
    default: return status >= 500 ? kError : status >= 400 ? kOtherClient : kAnswered;
  }
}

static enum outcome outcome_of(const struct sent *sent, struct end end) {
  if (sent->failure) return sent->failure;
  enum outcome answered = of_status(end.status);
  if (end.status && (answered != kAnswered || sent->is_over)) return answered;
  if (!end.is_client_gone) return sent->is_first_there ? kCut : kReset;
  if (sent->is_first_there) return kAnswered;  // the client left in the middle of a good answer
  return now_ms(CLOCK_MONOTONIC) - sent->at_ms < end.timeout_ms ? kAbandoned : kNoFirst;
}

void count_end(struct sent *sent, struct end end) {
  if (!sent->ledger) return;
  enum outcome outcome = outcome_of(sent, end);
  if (outcome == kAnswered) count_first(sent);  // an answer without a body
  ledger_add(sent->place, outcome, 1);
  sent->ledger = NULL;
}
