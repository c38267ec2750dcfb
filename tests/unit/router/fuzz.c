// Feeds the module hostile requests: every input ends at a page that cannot be read, and undefined
// behaviour ends the program. A fake Envoy cuts bodies anywhere; the key must not depend on it.
//   fuzz COUNT SEED
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checks.h"
#include "key.h"

struct text { const char *data; size_t length; };
struct header { const char *name; size_t name_length; const char *value; size_t value_length; };

// ── the module's side ───────────────────────────────────────────────────────────────────────────
const void *envoy_dynamic_module_on_http_filter_config_new(void *, struct text, struct text);
void envoy_dynamic_module_on_http_filter_config_destroy(const void *);
const void *envoy_dynamic_module_on_http_filter_new(const void *, void *);
void envoy_dynamic_module_on_http_filter_destroy(const void *);
int envoy_dynamic_module_on_http_filter_request_headers(void *, const void *, bool);
int envoy_dynamic_module_on_http_filter_request_body(void *, const void *, bool);
int envoy_dynamic_module_on_http_filter_request_trailers(void *, const void *);

// ── random ──────────────────────────────────────────────────────────────────────────────────────
static uint64_t state;
static uint64_t draw(uint64_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % below;
}

static void fail(const char *what) {
  fprintf(stderr, "fuzz: %s\n", what);
  abort();
}

// ── memory that ends at a page that cannot be read ──────────────────────────────────────────────
enum { kRegion = 1 << 18 };
struct region { uint8_t *end; };
static struct region region(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uint8_t *start = mmap(NULL, kRegion + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + kRegion, page, PROT_NONE)) fail("no memory");
  return (struct region){start + kRegion};
}
static struct span at_end(struct region where, const uint8_t *data, size_t length) {
  if (length) memcpy(where.end - length, data, length);
  return (struct span){where.end - length, length};
}

// ── the fake Envoy ──────────────────────────────────────────────────────────────────────────────
enum { kMost = 200, kPieces = 70 };
static struct {
  struct header headers[kMost];
  size_t header_count;
  struct text pieces[2][kPieces];
  size_t piece_count[2];
  char key[kKeyDigits + 1];
  size_t removed;
  unsigned status, tokens, limits;
} envoy;

size_t envoy_dynamic_module_callback_http_get_headers_size(void *s, int m) { (void)s, (void)m; return envoy.header_count; }
bool envoy_dynamic_module_callback_http_get_headers(void *s, int m, struct header *out) {
  (void)s, (void)m;
  memcpy(out, envoy.headers, envoy.header_count * sizeof *out);
  return true;
}
bool envoy_dynamic_module_callback_http_add_header(void *s, int m, struct text name, struct text value) {
  (void)s, (void)m;
  if (name.length == 14 && !memcmp(name.data, "x-llmfleet-key", 14)) {
    if (envoy.key[0] || value.length != kKeyDigits) fail("key twice or of wrong length");
    memcpy(envoy.key, value.data, kKeyDigits);
  } else if (name.length == 16 && !memcmp(name.data, "x-llmfleet-token", 16)) {
    envoy.tokens++;
  } else {
    fail("another header");
  }
  return true;
}
bool envoy_dynamic_module_callback_http_set_header(void *s, int m, struct text name, struct text value) {
  (void)s, (void)m;
  if (value.data) fail("a header set");
  if (!is_private((struct span){(const uint8_t *)name.data, name.length})) fail("removed");
  envoy.removed++;
  return true;
}
size_t envoy_dynamic_module_callback_http_get_body_size(void *s, int kind) {
  (void)s;
  size_t sum = 0;
  for (size_t i = 0; i < envoy.piece_count[kind]; i++) sum += envoy.pieces[kind][i].length;
  return sum;
}
size_t envoy_dynamic_module_callback_http_get_body_chunks_size(void *s, int kind) { (void)s; return envoy.piece_count[kind]; }
bool envoy_dynamic_module_callback_http_get_body_chunks(void *s, int kind, struct text *out) {
  (void)s;
  memcpy(out, envoy.pieces[kind], envoy.piece_count[kind] * sizeof *out);
  return true;
}
void envoy_dynamic_module_callback_http_set_buffer_limit(void *s, uint64_t bytes) { (void)s; envoy.limits += bytes > 0; }
void envoy_dynamic_module_callback_http_send_response(void *s, uint32_t status, struct header *h, size_t n, struct text body, struct text details) {
  (void)s, (void)h, (void)n, (void)body, (void)details;
  if (envoy.status) fail("two answers");
  envoy.status = status;
}

// ── inputs ──────────────────────────────────────────────────────────────────────────────────────
static const char *const kParts[] = {
    "{", "}", "[", "]", ":", ",", "\"", "\\", "\\\"", "\\\\", " ", "\n", "\t", "\"messages\"", "\"prompt\"",
    "\"input\"", "\"user\"", "\"content\"", "\"text\"", "\"role\":\"user\"", "\"content\":\"", "\"user\":",
    "\"user\" }", "\"type\":\"text\",\"text\":\"", "hello", "\"user", "\"conten", "\xff\xfe", "u0022",
};
static size_t body(uint8_t *out, size_t most) {
  size_t length = 0, goal = draw(40) ? draw(300) : draw(most);
  while (length < goal) {
    if (draw(8)) {
      const char *part = kParts[draw(sizeof kParts / sizeof *kParts)];
      size_t size = strlen(part);
      for (uint64_t again = draw(30) ? 1 : draw(200); again && length + size <= most; again--)
        memcpy(out + length, part, size), length += size;
    } else {
      if (length < most) out[length++] = (uint8_t)draw(256);
    }
  }
  return length;
}

static const char *const kNames[] = {":method", "content-type", "content-encoding", "content-length", "x-session-id",
    "x-llmfleet-token", "x-llmfleet-", "x-envoy-retry-on", "x-envoy-internal", "x-http-method", "x-", "accept", "x-llmfleet"};
static const char *const kValues[] = {"POST", "GET", "application/json", "Application/JSON; charset=utf-8", "identity", "",
    "gzip", "2", "99999999999999999999999", "-1", "application/json;", "application/json ; charset=\"UTF-8", "\0\xff"};

static void one(const void *config, struct region memory, struct region second, struct region names) {
  static uint8_t raw[160000];
  size_t length = body(raw, sizeof raw);
  struct span text = at_end(memory, raw, length);
  size_t prefix = 4096;
  char expected[kKeyDigits];
  struct span part = key_prefix(text, prefix);
  if (part.length > prefix || part.data < text.data || part.data + part.length > text.data + text.length)
    fail("prefix outside the body");
  key_digits(part, 0, expected);

  memset(&envoy, 0, sizeof envoy);
  bool has_session = false, is_post = draw(8), is_good = draw(4);
  uint8_t *end = names.end;
  envoy.header_count = is_good ? 2 : draw(draw(20) ? 12 : kMost);
  size_t privates = 0;
  for (size_t i = 0; i < envoy.header_count; i++) {
    const char *name = is_good ? kNames[i] : kNames[draw(sizeof kNames / sizeof *kNames)];
    const char *value = is_good ? (i ? "application/json" : is_post ? "POST" : "GET") : kValues[draw(sizeof kValues / sizeof *kValues)];
    size_t name_length = strlen(name), value_length = strlen(value), more = !is_good && !draw(50) ? draw(400) : 0;
    end -= value_length;
    memcpy(end, value, value_length);
    envoy.headers[i].value = (const char *)end, envoy.headers[i].value_length = value_length;
    end -= name_length + more;
    memset(end, 'a', name_length + more);
    memcpy(end, name, name_length);
    envoy.headers[i].name = (const char *)end, envoy.headers[i].name_length = name_length + more;
    has_session |= !more && !strcmp(name, "x-session-id");
    privates += is_private((struct span){end, name_length + more});
  }
  const void *request = envoy_dynamic_module_on_http_filter_new(config, NULL);
  int status = envoy_dynamic_module_on_http_filter_request_headers(NULL, request, false);
  if (status != 1) fail("a request with a body goes on before its end");
  if (is_good && envoy.status) fail("a good request refused");
  if (!envoy.status) {
    if (envoy.removed != privates) fail("private headers stay");
    if (envoy.tokens != 1 || envoy.limits != 1) fail("token or limit");
    size_t at = 0, cut = draw(3) ? text.length : draw(text.length + 1);
    while (at < cut && envoy.piece_count[1] < kPieces - 1) {
      size_t size = draw(4) ? 1 + draw(cut - at) : 1;
      envoy.pieces[1][envoy.piece_count[1]++] = (struct text){(const char *)text.data + at, size};
      at += size;
    }
    struct span rest = at_end(second, text.data + at, text.length - at);
    envoy.pieces[0][0] = (struct text){(const char *)rest.data, rest.length};
    envoy.piece_count[0] = 1;
    if (at && envoy_dynamic_module_on_http_filter_request_body(NULL, request, false) != 1) fail("not buffered");
    if (envoy_dynamic_module_on_http_filter_request_body(NULL, request, true)) fail("held back");
    bool wants = is_good && is_post && text.length;
    if (wants && memcmp(envoy.key, expected, kKeyDigits)) fail("the key depends on the cuts");
    if (has_session && is_good && !envoy.key[0]) fail("no key of a session");
  }
  envoy_dynamic_module_on_http_filter_destroy(request);
}

static void configuration(struct region memory) {
  static const char *const lines[] = {"prefix_bytes 4096\n", "prefix_bytes 65536\n", "prefix_bytes 65537\n", "body_limit_bytes 1\n",
      "body_limit_bytes ", "token a\n", "token \n", "token", "\n", " ", "json 1\n", "99999999999999999999\n"};
  uint8_t raw[400];
  size_t length = 0;
  for (uint64_t i = draw(5); i; i--) {
    const char *line = lines[draw(sizeof lines / sizeof *lines)];
    memcpy(raw + length, line, strlen(line)), length += strlen(line);
  }
  if (length && !draw(3)) raw[draw(length)] = (uint8_t)draw(256);
  struct span text = at_end(memory, raw, length);
  const void *config = envoy_dynamic_module_on_http_filter_config_new(
      NULL, (struct text){0}, (struct text){(const char *)text.data, text.length});
  if (config) envoy_dynamic_module_on_http_filter_config_destroy(config);
}

int main(int count, char **words) {
  if (count != 3) return 2;
  state = strtoull(words[2], NULL, 10) * 2654435761u + 88172645463325252u;
  struct region memory = region(), second = region(), names = region();
  static const char settings[] = "prefix_bytes 4096\nbody_limit_bytes 8388608\ntoken t\n";
  const void *config = envoy_dynamic_module_on_http_filter_config_new(
      NULL, (struct text){0}, (struct text){settings, sizeof settings - 1});
  if (!config) fail("configuration refused");
  for (unsigned long long i = strtoull(words[1], NULL, 10); i; i--) {
    one(config, memory, second, names);
    if (!(i % 16)) configuration(memory);
  }
  envoy_dynamic_module_on_http_filter_config_destroy(config);
  return 0;
}
