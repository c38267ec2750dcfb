#include "checks.h"

#include <string.h>

static bool starts_with(struct span text, const char *literal, size_t length) {
  return text.length >= length && !memcmp(text.data, literal, length);
}
#define STARTS(text, literal) starts_with(text, literal, sizeof literal - 1)

// Takes a literal of lower-case letters and marks off the front of a text.
static bool take(struct span *text, const char *literal) {
  size_t length = strlen(literal);
  if (text->length < length) return false;
  for (size_t i = 0; i < length; i++) {
    uint8_t byte = text->data[i];
    if (byte >= 'A' && byte <= 'Z') byte += 'a' - 'A';
    if (byte != (uint8_t)literal[i]) return false;
  }
  *text = (struct span){text->data + length, text->length - length};
  return true;
}

static void take_space(struct span *text) {
  while (text->length && (text->data[0] == ' ' || (text->data[0] >= '\t' && text->data[0] <= '\r' &&
                                                   text->data[0] != '\v')))
    *text = (struct span){text->data + 1, text->length - 1};
}

bool is_json_type(struct span value) {
  if (!take(&value, "application/json")) return false;
  take_space(&value);
  if (!value.length) return true;
  if (!take(&value, ";")) return false;
  take_space(&value);
  if (!take(&value, "charset=")) return false;
  take(&value, "\"");
  if (!take(&value, "utf-8")) return false;
  take(&value, "\"");
  take_space(&value);
  return !value.length;
}

bool is_no_encoding(struct span value) {
  return !value.length || (take(&value, "identity") && !value.length);
}

bool is_above(struct span value, size_t limit) {
  size_t number = 0;
  for (size_t i = 0; i < value.length; i++) {
    if (value.data[i] < '0' || value.data[i] > '9') return false;
    size_t digit = value.data[i] - '0';
    number = number > (SIZE_MAX - digit) / 10 ? SIZE_MAX : number * 10 + digit;
  }
  return number > limit;
}

bool is_private(struct span name) {
  if (!STARTS(name, "x-")) return false;
  if (STARTS(name, "x-llmfleet-")) return true;
  if (STARTS(name, "x-envoy-"))
    return !IS(name, "x-envoy-external-address") && !IS(name, "x-envoy-internal");
  return IS(name, "x-http-method-override") || IS(name, "x-http-method") ||
         IS(name, "x-method-override");
}
