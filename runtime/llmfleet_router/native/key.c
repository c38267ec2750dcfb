#include "key.h"

#include <string.h>

static const size_t kNone = SIZE_MAX;

// Where `field`, a name in quotes, begins at or after `from`; kNone if nowhere. Quotes are rare in
// what is searched, so this beats memmem and its table; at worst it is one memchr a byte.
static size_t find(struct span text, const char *field, size_t from) {
  size_t length = strlen(field);
  while (from < text.length && text.length - from >= length) {
    const uint8_t *found = memchr(text.data + from, '"', text.length - from - length + 1);
    if (!found) return kNone;
    from = (size_t)(found - text.data);
    if (!memcmp(found, field, length)) return from;
    from++;
  }
  return kNone;
}

static int begins(struct span text, size_t at, const char *field) {
  size_t length = strlen(field);
  return text.length - at >= length && !memcmp(text.data + at, field, length);
}

// Where the first of the fields begins that hold a prompt; 0 if there is none.
static size_t prompt_start(struct span head) {
  for (size_t at = 0; at < head.length; at++) {
    const uint8_t *found = memchr(head.data + at, '"', head.length - at);
    if (!found) break;
    at = (size_t)(found - head.data);
    if (begins(head, at, "\"messages\"") || begins(head, at, "\"prompt\"") ||
        begins(head, at, "\"input\""))
      return at;
  }
  return 0;
}

// The first position at or after `at` that is no white space; text.length if there is none.
static size_t visible(struct span text, size_t at) {
  while (at < text.length && (text.data[at] == ' ' || text.data[at] == '\n' ||
                              text.data[at] == '\r' || text.data[at] == '\t'))
    at++;
  return at;
}

static int is_at(struct span text, size_t at, uint8_t byte) {
  return at < text.length && text.data[at] == byte;
}

// Where the string begins that is the value of a field whose name ends before `at`; kNone if the
// value is something else.
static size_t string_value(struct span text, size_t at) {
  size_t colon = visible(text, at);
  if (!is_at(text, colon, ':')) return kNone;
  size_t quote = visible(text, colon + 1);
  return is_at(text, quote, '"') ? quote : kNone;
}

// Behind the quote that ends the string whose first quote is at `quote`; kNone if it does not end.
static size_t string_end(struct span text, size_t quote) {
  size_t at = quote + 1;
  while (at < text.length) {
    const uint8_t *found = memchr(text.data + at, '"', text.length - at);
    if (!found) return kNone;
    at = (size_t)(found - text.data);
    size_t before = at;  // the first quote is no backslash, so this stops behind it
    while (text.data[before - 1] == '\\') before--;
    at++;
    if ((at - 1 - before) % 2 == 0) return at;
  }
  return kNone;
}

// Behind the text of the first user message; what follows differs from turn to turn. It is a
// string, or the first text in a list of parts. kNone if it is not all there.
static size_t first_question_end(struct span text) {
  size_t at = 0, next;
  do {
    at = find(text, "\"user\"", at);
    if (at == kNone) return kNone;
    at += strlen("\"user\"");
    next = visible(text, at);
  } while (is_at(text, next, ':'));        // it was a field of that name
  if (is_at(text, next, '}')) return at;   // the content came before the role
  at = find(text, "\"content\"", at);
  if (at == kNone) return kNone;
  at += strlen("\"content\"");
  size_t quote;
  while ((quote = string_value(text, at)) == kNone) {
    at = find(text, "\"text\"", at);
    if (at == kNone) return kNone;
    at += strlen("\"text\"");
  }
  return string_end(text, quote);
}

struct span key_prefix(struct span body, size_t prefix) {
  struct span head = body;
  if (head.length > kSearchBytes) head.length = kSearchBytes;
  size_t start = prompt_start(head);
  struct span text = {body.data + start, body.length - start};
  if (text.length > prefix) text.length = prefix;
  size_t end = first_question_end(text);
  if (end != kNone) text.length = end;
  return text;
}

// ── the hash ────────────────────────────────────────────────────────────────────────────────────
// Two 64-bit lanes of xor, rotate and multiply, folded by murmur3's finaliser. Its quality matters
// little: Envoy hashes the header once more. That nobody can aim at one pod is not promised; the
// bound on each pod's load is.

static const uint64_t kOdd1 = 0x9e3779b97f4a7c15u, kOdd2 = 0xc2b2ae3d27d4eb4fu;

static uint64_t rotate(uint64_t value, unsigned bits) {
  return value << bits | value >> (64 - bits);
}

static uint64_t word(const uint8_t *bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof value);  // little-endian, as every machine that Envoy is built for
  return value;
}

static uint64_t mixed(uint64_t value) {
  value = (value ^ value >> 33) * 0xff51afd7ed558ccdu;
  value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53u;
  return value ^ value >> 33;
}

uint64_t key_hash(struct span text, uint64_t seed) {
  uint64_t a = seed, b = text.length * kOdd2;
  size_t at = 0;
  for (; text.length - at >= 16; at += 16) {
    a = rotate(a ^ word(text.data + at), 29) * kOdd1;
    b = rotate(b ^ word(text.data + at + 8), 31) * kOdd2;
  }
  uint8_t rest[16] = {0};
  if (text.length > at) memcpy(rest, text.data + at, text.length - at);
  a = rotate(a ^ word(rest), 29) * kOdd1;
  b = rotate(b ^ word(rest + 8), 31) * kOdd2;
  return mixed(a ^ rotate(b, 32));
}

void key_digits(struct span text, int is_session, char digits[kKeyDigits]) {
  uint64_t key = key_hash(text, is_session ? 1 : 2);
  for (size_t i = 0; i < kKeyDigits; i++)
    digits[i] = "0123456789abcdef"[key >> (60 - 4 * i) & 15];
}
