// An HTTP filter for Envoy (a dynamic module) that every request for an engine passes: it refuses
// what the engine must not see, takes out headers that only the router may say, collects the body,
// adds the engine's token and the affinity key, and books what becomes of it (counting.h).
//
// Envoy loads it by the path in its bootstrap; the functions that it calls and the ones it offers
// are those of Envoy's dynamic-module ABI. Only what is used is declared here.
//
// Lengths are left to Envoy: a content-length that is not the body's would smuggle requests.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "config.h"
#include "counting.h"
#include "envoy.h"
#include "key.h"
#include "pages.h"

// Of Envoy 1.40. With another, Envoy warns or refuses to load this.
static const char kAbiVersion[] = "v0.2.0";

// ── what Envoy offers ───────────────────────────────────────────────────────────────────────────

typedef void *envoy_stream;  // Envoy's filter object of one request

struct header {
  const char *name;
  size_t name_length;
  const char *value;
  size_t value_length;
};

enum header_map { kRequestHeaders = 0 };
enum body_kind { kReceivedBody = 0, kBufferedBody = 1, kReceivedAnswer = 2 };
enum headers_status { kHeadersContinue = 0, kHeadersStop = 1 };
enum body_status { kBodyContinue = 0, kBodyStopAndBuffer = 1 };

size_t envoy_dynamic_module_callback_http_get_headers_size(envoy_stream, enum header_map);
bool envoy_dynamic_module_callback_http_get_headers(envoy_stream, enum header_map, struct header *);
bool envoy_dynamic_module_callback_http_add_header(envoy_stream, enum header_map, struct text name,
                                                   struct text value);
// A value whose data is NULL removes the header.
bool envoy_dynamic_module_callback_http_set_header(envoy_stream, enum header_map, struct text name,
                                                   struct text value);
size_t envoy_dynamic_module_callback_http_get_body_size(envoy_stream, enum body_kind);
size_t envoy_dynamic_module_callback_http_get_body_chunks_size(envoy_stream, enum body_kind);
bool envoy_dynamic_module_callback_http_get_body_chunks(envoy_stream, enum body_kind,
                                                        struct text *);
void envoy_dynamic_module_callback_http_set_buffer_limit(envoy_stream, uint64_t bytes);
void envoy_dynamic_module_callback_http_send_response(envoy_stream, uint32_t status,
                                                      struct header *headers, size_t count,
                                                      struct text body, struct text details);

// What the most specific of table, route and arm says of its requests to this filter; NULL: nothing.
const void *envoy_dynamic_module_callback_get_most_specific_route_config(envoy_stream);

// Of the cluster that the request is led to.
bool envoy_dynamic_module_callback_http_get_cluster_name(envoy_stream, struct text *name);

// Of Envoy's attributes, by their place in its list.
enum attribute { kResponseCode = 15, kResponseFlags = 17 };
bool envoy_dynamic_module_callback_http_filter_get_attribute_int(envoy_stream, enum attribute,
                                                                 uint64_t *value);

// Of Envoy's response flags: DownstreamConnectionTermination, DownstreamProtocolError and
// DownstreamRemoteReset. A client that ends its connection by nonsense is gone as well.
static const uint64_t kClientGone =
    (uint64_t)1 << 14 | (uint64_t)1 << 18 | (uint64_t)1 << 28;

enum metadata { kOfTheHost = 3 };
bool envoy_dynamic_module_callback_http_get_metadata_number(envoy_stream, enum metadata,
                                                            struct text name, struct text key,
                                                            double *value);
bool envoy_dynamic_module_callback_http_get_metadata_string(envoy_stream, enum metadata,
                                                            struct text name, struct text key,
                                                            struct text *value);

#define TEXT(literal) \
  (struct text) { literal, sizeof literal - 1 }

// ── one request ─────────────────────────────────────────────────────────────────────────────────

struct request {
  const struct config *config;
  bool wants_key;   // and has none yet
  bool is_counted;  // /v1/models is not
  struct sent sent;
};

// What the headers say.
struct said {
  struct span types, encodings;
  size_t type_count, encoding_count;
  struct span session;
  bool is_post, has_session, is_too_long;
  size_t private_bytes;  // of the names of private headers
};

enum {
  kMostHeaders = 128,        // Envoy lets 100 of a client through and adds a few
  kMostNameBytes = 1 << 15,  // of private headers; Envoy lets 32 KiB of headers through
  kFewPieces = 32,           // half a megabyte
};

static void refuse(envoy_stream stream, uint32_t status, struct text details) {
  envoy_dynamic_module_callback_http_send_response(stream, status, NULL, 0, (struct text){0},
                                                   details);
}

static void add(envoy_stream stream, struct text name, struct text value) {
  envoy_dynamic_module_callback_http_add_header(stream, kRequestHeaders, name, value);
}

// Returns how many headers there are; 0: more than `headers` holds, so none was read.
static size_t headers_of(envoy_stream stream, struct header headers[kMostHeaders]) {
  size_t count = envoy_dynamic_module_callback_http_get_headers_size(stream, kRequestHeaders);
  if (count > kMostHeaders ||
      !envoy_dynamic_module_callback_http_get_headers(stream, kRequestHeaders, headers))
    return 0;
  return count;
}

static struct said read_headers(const struct header *headers, size_t count, size_t limit) {
  struct said said = {0};
  for (size_t i = 0; i < count; i++) {
    struct span name = {(const uint8_t *)headers[i].name, headers[i].name_length};
    struct span value = {(const uint8_t *)headers[i].value, headers[i].value_length};
    if (IS(name, ":method")) {
      said.is_post = IS(value, "POST");
    } else if (IS(name, "content-type")) {
      said.types = value;
      said.type_count++;
    } else if (IS(name, "content-encoding")) {
      said.encodings = value;
      said.encoding_count++;
    } else if (IS(name, "content-length")) {
      said.is_too_long |= is_above(value, limit);
    } else if (IS(name, "x-session-id")) {
      if (!said.has_session) said.session = value;
      said.has_session = true;
    } else if (is_private(name)) {
      said.private_bytes += name.length;
    }
  }
  return said;
}

// Removing a name frees all headers of that name, so the names are copied before the first goes.
__attribute__((noinline)) static void remove_private(envoy_stream stream,
                                                     const struct header *headers, size_t count) {
  char names[kMostNameBytes];
  size_t lengths[kMostHeaders], found = 0, used = 0;
  for (size_t i = 0; i < count; i++) {
    struct span name = {(const uint8_t *)headers[i].name, headers[i].name_length};
    if (!is_private(name)) continue;
    memcpy(names + used, name.data, name.length);
    used += lengths[found++] = name.length;
  }
  const char *name = names;
  for (size_t i = 0; i < found; name += lengths[i++])
    envoy_dynamic_module_callback_http_set_header(
        stream, kRequestHeaders, (struct text){name, lengths[i]}, (struct text){0});
}

// Envoy hashes it once more to pick a pod. To find a header by a name that is not among its own, it
// would index all of them; this one it removes from what clients send, and uses for nothing else.
static void add_digits(envoy_stream stream, const char digits[kKeyDigits]) {
  add(stream, TEXT("x-envoy-downstream-service-node"), (struct text){digits, kKeyDigits});
}

static void add_key(envoy_stream stream, struct span text, bool is_session) {
  char digits[kKeyDigits];
  key_digits(text, is_session, digits);
  add_digits(stream, digits);
}

// The pieces of one kind of body; `few` or a longer array that the caller frees. NULL: none.
static struct text *pieces_of(envoy_stream stream, enum body_kind kind, struct text few[kFewPieces],
                              size_t *count) {
  *count = envoy_dynamic_module_callback_http_get_body_chunks_size(stream, kind);
  struct text *pieces = few;
  if (*count > kFewPieces)
    pieces = *count < SIZE_MAX / sizeof *pieces ? malloc(*count * sizeof *pieces) : NULL;
  if (pieces && *count &&
      envoy_dynamic_module_callback_http_get_body_chunks(stream, kind, pieces))
    return pieces;
  if (pieces != few) free(pieces);
  *count = 0;
  return NULL;
}

// Copies bytes of a body behind the `length` that are in the window; returns the new length.
static size_t copy_pieces(envoy_stream stream, enum body_kind kind, uint8_t window[kWindowBytes],
                          size_t length, size_t wanted) {
  struct text few[kFewPieces];
  size_t count;
  struct text *pieces = pieces_of(stream, kind, few, &count);
  for (size_t i = 0; i < count && length < wanted; i++) {
    size_t taken = wanted - length < pieces[i].length ? wanted - length : pieces[i].length;
    if (taken) memcpy(window + length, pieces[i].data, taken);
    length += taken;
  }
  if (pieces && pieces != few) free(pieces);
  return length;
}

// For bodies whose first bytes are not in one piece.
__attribute__((noinline)) static void key_of_pieces(envoy_stream stream, size_t prefix) {
  uint8_t window[kWindowBytes];
  size_t wanted = kSearchBytes + prefix;
  size_t length = copy_pieces(stream, kBufferedBody, window, 0, wanted);
  if (length < wanted) length = copy_pieces(stream, kReceivedBody, window, length, wanted);
  if (length) add_key(stream, key_prefix((struct span){window, length}, prefix), false);
}

// The body is what was buffered and, in HTTP/2, a last piece that was not.
static void key_of_body(envoy_stream stream, bool has_last, size_t prefix) {
  struct text few[kFewPieces];
  size_t count;
  size_t rest =
      has_last ? envoy_dynamic_module_callback_http_get_body_size(stream, kReceivedBody) : 0;
  struct text *pieces = pieces_of(stream, kBufferedBody, few, &count);
  bool is_enough = count && ((count == 1 && !rest) || pieces[0].length >= kSearchBytes + prefix);
  struct text first = is_enough ? pieces[0] : (struct text){0};
  if (pieces && pieces != few) free(pieces);
  if (is_enough)
    add_key(stream, key_prefix((struct span){(const uint8_t *)first.data, first.length}, prefix),
            false);
  else if (count || rest)
    key_of_pieces(stream, prefix);
}

// It leaves for an engine.
static void book(envoy_stream stream, struct request *request, size_t body_bytes) {
  struct text cluster = {0};
  if (request->is_counted && envoy_dynamic_module_callback_http_get_cluster_name(stream, &cluster))
    count_sent(&request->sent, request->config->ledger,
               envoy_dynamic_module_callback_get_most_specific_route_config(stream), cluster,
               body_bytes);
}

// ── what Envoy calls ────────────────────────────────────────────────────────────────────────────

EXPORT const char *envoy_dynamic_module_on_program_init(void) {
  // Set by whoever means to serve with this process, and not only to look at its configuration.
  const char *wanted = getenv("LLMFLEET_HUGE_PAGES");
  if (wanted && !strcmp(wanted, "1")) use_huge_pages();
  return kAbiVersion;
}

EXPORT void envoy_dynamic_module_on_http_filter_config_destroy(const void *config) {
  config_free((struct config *)config);
}

EXPORT const void *envoy_dynamic_module_on_http_filter_config_new(void *envoy, struct text name,
                                                                  struct text text) {
  (void)envoy, (void)name;
  return config_read(text);  // NULL: Envoy refuses the configuration
}

EXPORT const void *envoy_dynamic_module_on_http_filter_new(const void *config,
                                                           envoy_stream stream) {
  (void)stream;
  struct request *request = calloc(1, sizeof *request);
  if (!request) abort();  // as Envoy itself does when there is no memory
  request->config = config;
  return request;
}

EXPORT void envoy_dynamic_module_on_http_filter_destroy(const void *request) {
  free((void *)request);
}

EXPORT enum headers_status envoy_dynamic_module_on_http_filter_request_headers(envoy_stream stream,
                                                                               const void *pointer,
                                                                               bool is_end) {
  struct request *request = (struct request *)pointer;
  const struct config *config = request->config;
  struct header headers[kMostHeaders];
  size_t count = headers_of(stream, headers);
  struct said said = read_headers(headers, count, config->body_limit_bytes);
  if (!count || said.private_bytes > kMostNameBytes)
    return refuse(stream, 431, TEXT("llmfleet_headers")), kHeadersStop;
  if (said.is_post && (said.type_count != 1 || !is_json_type(said.types) ||
                       said.encoding_count > 1 || !is_no_encoding(said.encodings)))
    return refuse(stream, 415, TEXT("llmfleet_media_type")), kHeadersStop;
  if (said.is_too_long) return refuse(stream, 413, TEXT("llmfleet_body_limit")), kHeadersStop;
  char digits[kKeyDigits];
  request->wants_key = said.is_post && config->prefix_bytes;
  request->is_counted = said.is_post && config->ledger;
  bool has_key = request->wants_key && said.has_session;
  if (has_key) key_digits(said.session, true, digits);
  // From here on headers change, and what `said` points to may be gone.
  if (said.private_bytes) remove_private(stream, headers, count);
  if (has_key) {
    add_digits(stream, digits);
    request->wants_key = false;
  }
  if (config->token)
    add(stream, TEXT("x-llmfleet-token"), (struct text){config->token, config->token_length});
  if (is_end) return book(stream, request, 0), kHeadersContinue;
  envoy_dynamic_module_callback_http_set_buffer_limit(stream, config->body_limit_bytes);
  return kHeadersStop;
}

static void complete(envoy_stream stream, struct request *request, bool has_last) {
  if (request->wants_key) key_of_body(stream, has_last, request->config->prefix_bytes);
  size_t bytes = envoy_dynamic_module_callback_http_get_body_size(stream, kBufferedBody);
  if (has_last) bytes += envoy_dynamic_module_callback_http_get_body_size(stream, kReceivedBody);
  book(stream, request, bytes);
}

EXPORT enum body_status envoy_dynamic_module_on_http_filter_request_body(envoy_stream stream,
                                                                         const void *pointer,
                                                                         bool is_end) {
  struct request *request = (struct request *)pointer;
  // Above the buffer's limit Envoy answers 413 by itself.
  if (!is_end) return kBodyStopAndBuffer;
  complete(stream, request, true);
  return kBodyContinue;
}

EXPORT int envoy_dynamic_module_on_http_filter_request_trailers(envoy_stream stream,
                                                                const void *request) {
  complete(stream, (struct request *)request, false);
  return 0;
}

EXPORT int envoy_dynamic_module_on_http_filter_local_reply(envoy_stream stream, const void *request,
                                                           uint32_t status, struct text details,
                                                           bool is_reset) {
  (void)stream, (void)status, (void)is_reset;
  count_own_answer(&((struct request *)request)->sent, details);
  return 0;
}

// Answers pass as they are; the module looks on.
EXPORT int envoy_dynamic_module_on_http_filter_response_headers(envoy_stream stream,
                                                                const void *request, bool is_end) {
  (void)stream;
  ((struct request *)request)->sent.is_over |= is_end;
  return 0;
}

static unsigned status_of(envoy_stream stream) {
  uint64_t status = 0;
  envoy_dynamic_module_callback_http_filter_get_attribute_int(stream, kResponseCode, &status);
  return (unsigned)status;
}

// Whether a pod of another revision answers, or should have.
static bool is_elsewhere(envoy_stream stream, struct sent *sent) {
  struct text revision;
  return sent->has_other &&
         envoy_dynamic_module_callback_http_get_metadata_string(
             stream, kOfTheHost, TEXT("llmfleet"), TEXT("revision"), &revision) &&
         count_elsewhere(sent, revision);
}

EXPORT int envoy_dynamic_module_on_http_filter_response_body(envoy_stream stream,
                                                             const void *pointer, bool is_end) {
  struct request *request = (struct request *)pointer;
  struct sent *sent = &request->sent;
  sent->is_over |= is_end;
  if (sent->ledger && !sent->is_first_there && !sent->failure && status_of(stream) < 400 &&
      envoy_dynamic_module_callback_http_get_body_size(stream, kReceivedAnswer) &&
      !is_elsewhere(stream, sent))
    count_first(sent);
  return 0;
}

EXPORT int envoy_dynamic_module_on_http_filter_response_trailers(envoy_stream stream,
                                                                 const void *request) {
  (void)stream;
  ((struct request *)request)->sent.is_over = true;
  return 0;
}

EXPORT void envoy_dynamic_module_on_http_filter_stream_complete(envoy_stream stream,
                                                                const void *pointer) {
  struct request *request = (struct request *)pointer;
  if (!request->sent.ledger) return;
  double since;
  if (!is_elsewhere(stream, &request->sent) &&
      envoy_dynamic_module_callback_http_get_metadata_number(
          stream, kOfTheHost, TEXT("llmfleet"), TEXT("ready_since"), &since))
    count_pod(&request->sent, since);
  uint64_t flags = 0;
  if (!request->sent.is_over)
    envoy_dynamic_module_callback_http_filter_get_attribute_int(stream, kResponseFlags, &flags);
  count_end(&request->sent, (struct end){
                                .status = status_of(stream),
                                .is_client_gone = flags & kClientGone,
                                .timeout_ms = request->config->first_token_timeout_ms,
                            });
}

EXPORT const void *envoy_dynamic_module_on_http_filter_per_route_config_new(struct text name,
                                                                            struct text text) {
  (void)name;
  struct booking *booking = malloc(sizeof *booking);
  if (booking && read_booking(text, booking)) return booking;
  free(booking);
  return NULL;  // Envoy refuses the routes
}

EXPORT void envoy_dynamic_module_on_http_filter_per_route_config_destroy(const void *booking) {
  free((void *)booking);
}

// Envoy asks for these as well and never calls them: no callouts, timers or answers of our own.
#define UNUSED(hook) \
  EXPORT void envoy_dynamic_module_on_http_filter_##hook(void) {}
UNUSED(http_callout_done)
UNUSED(http_stream_headers)
UNUSED(http_stream_data)
UNUSED(http_stream_trailers)
UNUSED(http_stream_complete)
UNUSED(http_stream_reset)
UNUSED(scheduled)
UNUSED(downstream_above_write_buffer_high_watermark)
UNUSED(downstream_below_write_buffer_low_watermark)
