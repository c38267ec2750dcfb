// Feeds the module hostile requests. A fake Envoy gives it headers and bodies that end at a page
// which cannot be read, and so does every allocation of the module (malloc, calloc and free are
// the ones here, by -D); undefined behaviour and broken stack frames end the program. Bodies are cut
// anywhere; the key must not depend on it. Names of headers are gone once the first is removed.
//   fuzz COUNT SEED
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checks.h"
#include "counting.h"
#include "key.h"

struct header { const char *name; size_t name_length; const char *value; size_t value_length; };

// ── the module's side ───────────────────────────────────────────────────────────────────────────
const void *envoy_dynamic_module_on_http_filter_config_new(void *, struct text, struct text);
void envoy_dynamic_module_on_http_filter_config_destroy(const void *);
const void *envoy_dynamic_module_on_http_filter_new(const void *, void *);
void envoy_dynamic_module_on_http_filter_destroy(const void *);
int envoy_dynamic_module_on_http_filter_request_headers(void *, const void *, bool);
int envoy_dynamic_module_on_http_filter_request_body(void *, const void *, bool);
int envoy_dynamic_module_on_http_filter_request_trailers(void *, const void *);
const void *envoy_dynamic_module_on_lb_config_new(void *, struct text, struct text);
void envoy_dynamic_module_on_lb_config_destroy(const void *);
const void *envoy_dynamic_module_on_lb_new(const void *, void *);
void envoy_dynamic_module_on_lb_destroy(const void *);
void envoy_dynamic_module_on_lb_on_host_membership_update(void *, const void *, size_t, size_t);
bool envoy_dynamic_module_on_lb_choose_host(void *, const void *, void *, uint32_t *, uint32_t *);

// ── random ──────────────────────────────────────────────────────────────────────────────────────
static uint64_t state;
static uint64_t draw(uint64_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % below;
}

_Noreturn static void fail(const char *what) {
  fprintf(stderr, "fuzz: %s\n", what);
  abort();
}

// ── memory that ends at a page that cannot be read ──────────────────────────────────────────────
enum { kRegion = 1 << 18 };
struct region { uint8_t *end; };
static size_t page;
static uint8_t *mapped(size_t length) {
  uint8_t *start = mmap(NULL, length + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + length, page, PROT_NONE)) fail("no memory");
  return start;
}
static struct region region(void) { return (struct region){mapped(kRegion) + kRegion}; }
static struct span at_end(struct region where, const uint8_t *data, size_t length) {
  if (length) memcpy(where.end - length, data, length);
  return (struct span){where.end - length, length};
}

// What the module allocates: a mapping each, which is gone when it is freed.
static struct { uint8_t *pointer, *start; size_t whole; } allocated[8];
enum { kAllocations = sizeof allocated / sizeof *allocated };
void *guarded_malloc(size_t length) {
  size_t whole = (length + page - 1) / page * page;
  for (size_t i = 0; i < kAllocations; i++)
    if (!allocated[i].pointer) {
      allocated[i].start = mapped(whole), allocated[i].whole = whole;
      return allocated[i].pointer = allocated[i].start + whole - length;
    }
  fail("memory that is never freed");
}
void *guarded_calloc(size_t count, size_t length) { return guarded_malloc(count * length); }
void guarded_free(void *pointer) {
  if (!pointer) return;
  for (size_t i = 0; i < kAllocations; i++)
    if (allocated[i].pointer == pointer) {
      allocated[i].pointer = NULL;
      munmap(allocated[i].start, allocated[i].whole + page);
      return;
    }
  fail("freed what was not allocated");
}

// ── the fake Envoy ──────────────────────────────────────────────────────────────────────────────
enum { kMost = 200, kPieces = 70 };
static struct {
  struct header headers[kMost];
  size_t header_count;
  struct text pieces[3][kPieces];  // the last of the answer
  size_t piece_count[3];
  char key[kKeyDigits + 1];
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
  if (name.length == 31 && !memcmp(name.data, "x-envoy-downstream-service-node", 31)) {
    if (envoy.key[0] || value.length != kKeyDigits) fail("key twice or of wrong length");
    memcpy(envoy.key, value.data, kKeyDigits);
  } else if (name.length == 16 && !memcmp(name.data, "x-llmfleet-token", 16)) {
    envoy.tokens++;
  } else {
    fail("another header");
  }
  return true;
}
// Removes all headers of a name; their memory is somebody else's from then on.
bool envoy_dynamic_module_callback_http_set_header(void *s, int m, struct text name, struct text value) {
  (void)s, (void)m;
  if (value.data) fail("a header set");
  if (!is_private((struct span){(const uint8_t *)name.data, name.length})) fail("removed");
  for (size_t i = 0; i < envoy.header_count; i++) {
    struct header *header = &envoy.headers[i];
    if (header->name_length != name.length || memcmp(header->name, name.data, name.length)) continue;
    if (header->name == name.data) fail("a name that goes with its header");
    memset((char *)header->name, '!', header->name_length);
    memset((char *)header->value, '!', header->value_length);
    header->name_length = header->value_length = 0;
  }
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
static const struct booking booking = {7, kSplit};
const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *s) { (void)s; return &booking; }
bool envoy_dynamic_module_callback_http_get_cluster_name(void *s, struct text *name) {
  (void)s;
  *name = (struct text){"rev-a000000001", 14};
  return true;
}
bool envoy_dynamic_module_callback_http_filter_get_attribute_int(void *s, int which, uint64_t *value) {
  (void)s;
  *value = which == 15 ? 200 : 0;
  return true;
}
bool envoy_dynamic_module_callback_http_get_metadata_number(void *s, int where, struct text name, struct text key, double *value) {
  (void)s, (void)where, (void)name, (void)key, (void)value;
  return false;
}
bool envoy_dynamic_module_callback_http_get_metadata_string(void *s, int where, struct text name, struct text key, struct text *value) {
  (void)s, (void)where, (void)name, (void)key, (void)value;
  return false;
}
void envoy_dynamic_module_callback_http_send_response(void *s, uint32_t status, struct header *h, size_t n, struct text body, struct text details) {
  (void)s, (void)h, (void)n, (void)body, (void)details;
  if (envoy.status) fail("two answers");
  envoy.status = status;
}

// Hosts: all of them, and the places of the healthy ones.
enum { kHosts = 20 };
static struct {
  struct text addresses[kHosts];
  uint64_t active[kHosts];
  bool is_tried[kHosts];
  size_t count, healthy[kHosts], healthy_count;
  bool has_key;
} hosts;

size_t envoy_dynamic_module_callback_lb_get_hosts_count(void *s, uint32_t p) { (void)s, (void)p; return hosts.count; }
size_t envoy_dynamic_module_callback_lb_get_healthy_hosts_count(void *s, uint32_t p) { (void)s, (void)p; return hosts.healthy_count; }
bool envoy_dynamic_module_callback_lb_get_host_address(void *s, uint32_t p, size_t i, struct text *out) {
  (void)s, (void)p;
  if (i >= hosts.count) fail("the address of a host that is not there");
  *out = hosts.addresses[i];
  return true;
}
bool envoy_dynamic_module_callback_lb_get_healthy_host_address(void *s, uint32_t p, size_t i, struct text *out) {
  if (i >= hosts.healthy_count) fail("the address of a healthy host that is not there");
  return envoy_dynamic_module_callback_lb_get_host_address(s, p, hosts.healthy[i], out);
}
uint64_t envoy_dynamic_module_callback_lb_get_host_stat(void *s, uint32_t p, size_t i, int stat) {
  (void)s, (void)p;
  if (i >= hosts.count || stat != 7) fail("another statistic");
  return hosts.active[i];
}
bool envoy_dynamic_module_callback_lb_context_compute_hash_key(void *s, uint64_t *key) {
  (void)s;
  if (hosts.has_key) *key = draw(1000);
  return hosts.has_key;
}
bool envoy_dynamic_module_callback_lb_context_should_select_another_host(void *s, void *choice, uint32_t p, size_t i) {
  (void)s, (void)p;
  if (i >= hosts.count || !choice) fail("asked about a host that is not there");
  return hosts.is_tried[i];
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
enum { kNameCount = sizeof kNames / sizeof *kNames };
static const char *const kValues[] = {"POST", "GET", "application/json", "Application/JSON; charset=utf-8", "identity", "",
    "gzip", "2", "99999999999999999999999", "-1", "application/json;", "application/json ; charset=\"UTF-8", "\0\xff"};

static void draw_headers(uint8_t *end, bool is_good, bool is_post) {
  static const char *const good[] = {":method", "content-type"};
  const char *const good_values[] = {is_post ? "POST" : "GET", "application/json"};
  envoy.header_count = draw(draw(20) ? 12 : kMost - 2) + (is_good ? 2 : 0);
  for (size_t i = 0; i < envoy.header_count; i++) {
    bool is_given = is_good && i < 2;
    // A good request has no other types and lengths, but private headers and sessions.
    const char *name = is_given ? good[i] : kNames[is_good ? 4 + draw(kNameCount - 4) : draw(kNameCount)];
    const char *value = is_given ? good_values[i] : kValues[draw(sizeof kValues / sizeof *kValues)];
    size_t more = !is_given && !draw(50) ? draw(400) : 0;
    struct header *header = &envoy.headers[i];
    header->value_length = strlen(value), header->name_length = strlen(name) + more;
    header->value = (char *)(end -= header->value_length);
    memcpy(end, value, header->value_length);
    header->name = (char *)(end -= header->name_length);
    memset(end, 'a', header->name_length);
    memcpy(end, name, strlen(name));
  }
}

// Cuts the body in pieces, the last of which Envoy has not put to the others.
static size_t draw_pieces(struct span text, struct region last) {
  size_t at = 0, cut = draw(3) ? text.length : draw(text.length + 1);
  bool is_small = draw(2);
  while (at < cut && envoy.piece_count[1] < kPieces - 1) {
    size_t size = 1 + draw(is_small && cut - at > 500 ? 500 : cut - at);
    envoy.pieces[1][envoy.piece_count[1]++] = (struct text){(const char *)text.data + at, size};
    at += size;
  }
  struct span rest = at_end(last, text.data + at, text.length - at);
  envoy.pieces[0][0] = (struct text){(const char *)rest.data, rest.length};
  envoy.piece_count[0] = 1;
  return at;
}

static void one(const void *config, size_t prefix, const struct region memory[3]) {
  static uint8_t raw[160000];
  size_t length = body(raw, sizeof raw);
  struct span text = at_end(memory[0], raw, length);
  char expected[kKeyDigits];
  struct span part = key_prefix(text, prefix);
  if (part.length > prefix || part.data < text.data || part.data + part.length > text.data + text.length)
    fail("prefix outside the body");
  key_digits(part, 0, expected);

  memset(&envoy, 0, sizeof envoy);
  bool is_good = draw(4), is_post = draw(8), has_session = false;
  draw_headers(memory[1].end, is_good, is_post);
  for (size_t i = 0; i < envoy.header_count; i++)
    has_session |= envoy.headers[i].name_length == 12 && !memcmp(envoy.headers[i].name, "x-session-id", 12);
  const void *request = envoy_dynamic_module_on_http_filter_new(config, NULL);
  if (envoy_dynamic_module_on_http_filter_request_headers(NULL, request, false) != 1)
    fail("a request with a body goes on before its end");
  if (is_good && (envoy.status != 0) != (envoy.header_count > 128)) fail("a good request refused");
  if (!envoy.status) {
    for (size_t i = 0; i < envoy.header_count; i++)
      if (is_private((struct span){(const uint8_t *)envoy.headers[i].name, envoy.headers[i].name_length}))
        fail("a private header stays");
    if (envoy.tokens != 1 || envoy.limits != 1) fail("token or limit");
    size_t at = draw_pieces(text, memory[2]);
    if (at && envoy_dynamic_module_on_http_filter_request_body(NULL, request, false) != 1) fail("not buffered");
    bool has_trailers = at == text.length && draw(2);
    if (has_trailers) envoy.piece_count[0] = 0;
    if (has_trailers ? envoy_dynamic_module_on_http_filter_request_trailers(NULL, request)
                     : envoy_dynamic_module_on_http_filter_request_body(NULL, request, true))
      fail("held back");
    bool has_key = is_good && is_post && (has_session || text.length);
    if (is_good && (envoy.key[0] != 0) != has_key) fail("a key, or none");
    if (has_key && !has_session && memcmp(envoy.key, expected, kKeyDigits)) fail("the key depends on the cuts");
  }
  envoy_dynamic_module_on_http_filter_destroy(request);
}

// Values of header lines, cut anywhere.
static void values(struct region memory) {
  static const char *const whole[] = {"application/json ; charset=\"utf-8\" ", "identity", "18446744073709551616"};
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
    struct span value = at_end(memory, (const uint8_t *)whole[i], draw(strlen(whole[i]) + 1));
    bool is_whole = value.length == strlen(whole[i]);
    bool is_good = i == 0 ? is_json_type(value) : i == 1 ? is_no_encoding(value) : is_above(value, SIZE_MAX / 10);
    // The type may end anywhere between its words, and no encoding may be said.
    if (is_whole && !is_good) fail("a good value refused");
    if (is_good && i != 2 && !is_whole && value.length > 17 && value.length < 33) fail("half a value taken");
  }
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

static void draw_hosts(struct region memory) {
  uint8_t *end = memory.end;
  hosts.count = draw(kHosts), hosts.healthy_count = 0;
  for (size_t i = 0; i < hosts.count; i++) {
    char address[40];
    int length = snprintf(address, sizeof address, "10.0.%u.%zu:8000", (unsigned)draw(200), i);
    end -= length, memcpy(end, address, (size_t)length);
    hosts.addresses[i] = (struct text){(const char *)end, (size_t)length};
    if (draw(4)) hosts.healthy[hosts.healthy_count++] = i;
  }
}

static void balancing(struct region memory) {
  const void *config = envoy_dynamic_module_on_lb_config_new(NULL, (struct text){"affinity", 8}, (struct text){0});
  if (!config || envoy_dynamic_module_on_lb_config_new(NULL, (struct text){"affinit", 7}, (struct text){0}))
    fail("a balancer of another name");
  draw_hosts(memory);
  const void *balancer = envoy_dynamic_module_on_lb_new(config, NULL);
  for (int again = 0; again < 40; again++) {
    if (!draw(10)) {
      draw_hosts(memory);
      envoy_dynamic_module_on_lb_on_host_membership_update(NULL, balancer, 0, 0);
    }
    size_t left = 0;
    for (size_t i = 0; i < hosts.count; i++) hosts.active[i] = draw(3) ? draw(20) : 0, hosts.is_tried[i] = !draw(3);
    for (size_t i = 0; i < hosts.healthy_count; i++) left += !hosts.is_tried[hosts.healthy[i]];
    hosts.has_key = draw(2);
    uint32_t priority = 9, index = 9999;
    bool has_choice = draw(10);
    if (envoy_dynamic_module_on_lb_choose_host(NULL, balancer, has_choice ? memory.end : NULL, &priority, &index) != (hosts.healthy_count > 0))
      fail("a pod, or none");
    if (!hosts.healthy_count) continue;
    if (priority || index >= hosts.healthy_count) fail("a pod that is not there");
    if (has_choice && left && hosts.is_tried[hosts.healthy[index]]) fail("a pod that was tried");
  }
  envoy_dynamic_module_on_lb_destroy(balancer);
  envoy_dynamic_module_on_lb_config_destroy(config);
}

int main(int count, char **words) {
  if (count != 3) return 2;
  page = (size_t)sysconf(_SC_PAGESIZE);
  state = strtoull(words[2], NULL, 10) * 2654435761u + 88172645463325252u;
  const struct region memory[3] = {region(), region(), region()};
  static const size_t prefixes[] = {4096, 1, 65536};
  for (unsigned long long i = strtoull(words[1], NULL, 10); i; i--) {
    size_t prefix = prefixes[draw(3)];
    char settings[100];
    int length = snprintf(settings, sizeof settings, "prefix_bytes %zu\nbody_limit_bytes 8388608\ntoken t\n", prefix);
    const void *config = envoy_dynamic_module_on_http_filter_config_new(
        NULL, (struct text){0}, (struct text){settings, (size_t)length});
    if (!config) fail("configuration refused");
    for (int again = 0; again < 16 && i > 1; again++, i--) one(config, prefix, memory);
    one(config, prefix, memory);
    envoy_dynamic_module_on_http_filter_config_destroy(config);
    configuration(memory[0]);
    for (int again = 0; again < 16; again++) values(memory[0]);
    balancing(memory[0]);
  }
  return 0;
}
